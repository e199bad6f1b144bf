"""Numbers as a reader sees them: three decimals, a true minus sign, thousands in groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def number(value: float | None) -> str:
    """A number with three decimals and a true minus sign; a dash for None. What rounds to 0 has no sign."""
    if value is None:
        return DASH
    text = f"{value:,.3f}"
    return "0.000" if text == "-0.000" else text.replace("-", MINUS)


def signed(value: float | None) -> str:
    """Like `number`, with a plus sign for positive values."""
    text = number(value)
    return text if text in (DASH, "0.000") or text.startswith(MINUS) else f"+{text}"


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval of a difference, "+0.100 to +0.300"; "no interval" where there is none."""
    return "no interval" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def told(row: Mapping[str, Any]) -> str:
    """A row of table `comparisons` or `pairs` in words, with all its numbers."""
    return (
        f"{row['arm']} minus {row['control']} on {row['eval']}, {row['metric']}: {signed(row['difference'])} "
        f"({interval(row['ci_low'], row['ci_high'])}), n = {row['n_pairs']}; won {row['wins']}, lost {row['losses']}, "
        f"tied {row['ties']}"
    )


def percent(part: int, whole: int) -> str:
    """A share as a whole percentage: "53%"; "0%" of nothing."""
    return f"{100 * part / whole:.0f}%" if whole else "0%"


def duration(seconds: float | None) -> str:
    """Seconds as text: "5.2 s", "3 min 20 s" or "2 h 5 min"; a dash for None."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left_over = divmod(round(seconds), 60)
    return f"{minutes} min {left_over} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def browse(ev: str, arm: str, control: str | None = None, show: str = "all") -> str:
    """The address, within the page, of the responses of an arm to an eval, beside those of a control."""
    return f"#browse?eval={ev}&a={arm}" + (f"&b={control}" if control else "") + f"&show={show}"
