"""A configuration of COAT: an object in a physical state, of five variables."""

from __future__ import annotations

from typing import Any, NamedTuple

from imprint.runtime.errors import ImprintError

VALUES: dict[str, tuple[str, ...]] = {
    "mass": ("light", "medium", "heavy", "super-heavy"),
    "material": (
        *("Metal", "Plastic", "Wood", "Glass", "Food", "Ceramic", "Fabric"),
        *("Organic", "Stone", "Paper", "Wax", "Sponge", "Soap", "Rubber"),
    ),
    "temperature": ("Cold", "RoomTemp", "Hot"),
    "already_in_use": ("free", "reversible-using", "irreversible-using"),
    "condition": ("clean", "dirty", "broken"),
}
PENALTIES = ("time_penalty", "material_penalty")


class Config(NamedTuple):
    """An object in a physical state, as in `possible_configurations_v1.json` without its id."""

    object_name: str
    mass: str
    material: str
    temperature: str
    already_in_use: str
    condition: str


def fail(where: str, value: object, instead: str) -> ImprintError:
    """The error for a `value` at a place of a file, which should be replaced by `instead`."""
    return ImprintError(f"{where}: found {value!r:.120}; write {instead}")


def checked(row: Any, extra: tuple[str, ...], where: str) -> Config:
    """The configuration of a row of a file, which has an object, its five variables, and the keys `extra`. Raises
    ImprintError for any other row."""
    keys = (*Config._fields, *extra)
    if not isinstance(row, dict) or sorted(row) != sorted(keys):
        raise fail(where, row, f"an object with the keys {', '.join(keys)}")
    if not isinstance(row["object_name"], str) or not row["object_name"].strip():
        raise fail(f"{where}, object_name", row["object_name"], "the name of an object")
    for key, allowed in VALUES.items():
        if row[key] not in allowed:
            raise fail(f"{where}, {key}", row[key], f"one of {', '.join(allowed)}")
    if row["condition"] == "broken" and row["already_in_use"] != "irreversible-using":
        raise fail(f"{where}, condition", "broken", "it together with irreversible-using")
    return Config(*(row[key] for key in Config._fields))
