"""How COAT's tables are put in words: our own wording, one order of the variables for every option."""

from __future__ import annotations

import re

from imprint.datasets._coat_configs import Config

# What each utility of the published tables (upper part) and of ours (lower part) means.
PHRASES = {
    "heating(source)": "give off heat",
    "heating(vessel)": "hold something while it is being heated",
    "carrying": "hold and move food or liquid",
    "cleaning": "get dirt or moisture off something",
    "washing": "rinse things under or in water",
    "cutting": "cut something into pieces",
    "disposing": "get rid of something that is no longer needed",
    "mixing(tool)": "stir ingredients together",
    "mixing(vessel)": "contain ingredients while they are stirred",
    "storage": "keep things in until they are needed",
    "entertainment": "have a good time with music, films or games",
    "comfort": "sit or lie on at ease",
    "reading": "read from",
    "increasing_height": "stand on to reach something high up",
    "time": "find out what time it is",
    "eating": "eat",
    "physical_excercise": "train the body or play a sport",
    "writing": "put words down",
    "surface_support": "set things down on",
    "light_source": "get light into a room",
    "decoration": "make a place look nicer",
    "breaking": "crack or smash something",
    "heating_food": "cook or warm up food with heat",
    "holding_liquid": "hold a liquid without spilling it",
    "cleaning_up": "remove dirt, dust or spills by wiping, sweeping or scrubbing",
    "sitting": "sit down on",
    "reaching_high": "stand on steadily to reach something high up",
    "writing_down": "put words or a drawing down",
    "telling_time": "keep track of the time of day",
    "giving_light": "see by in the dark",
    "storing": "keep or pack things until they are needed",
    "mixing": "stir or blend ingredients together",
    "striking": "hit, crush or crack something hard",
    "keeping_warm": "keep the body warm",
}
MASS = {"light": "light", "medium": "of medium weight", "heavy": "heavy", "super-heavy": "very heavy"}
MATERIAL = {"Wood": "wooden", "Fabric": "cloth", "Food": "edible", "Organic": "plant-fibre"}
TEMPERATURE = {"Cold": "cold", "RoomTemp": "at room temperature", "Hot": "hot"}
USE = {"free": "free", "reversible-using": "occupied", "irreversible-using": "used-up"}
STATES = (
    "A free object can be used at once; an occupied one can be used after a wait; a used-up one cannot be used any "
    "more. Weigh all that is said about it: it should be safe, of a suitable material, and ready in the least time."
)
GUIDANCE = {
    "u": "",
    "0": "It should be safe and feasible, with the least effort and time.",
    "1": STATES,
    "2": f"Nothing at hand is perfect. {STATES}",
}
HINT = "Cleaning a dirty object takes less time than waiting for an occupied one."
LETTERS = "ABCDE"


def object_text(name: str) -> str:
    """An object's name in words: StoveBurner -> stove burner; a name all in capitals stays."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).split()
    return " ".join(word if word.isupper() else word.lower() for word in words)


def utility_text(utility: str) -> str:
    """A utility's name in words: heating(source) -> heating (source)."""
    return re.sub(r"\s*\((.*)\)", r" (\1)", utility.replace("_", " "))


def config_text(config: Config) -> str:
    """A configuration in words, such as "the clean, free ceramic bowl, light, at room temperature"."""
    material = MATERIAL.get(config.material, config.material.lower())
    return (
        f"the {config.condition}, {USE[config.already_in_use]} {material} {object_text(config.object_name)}, "
        f"{MASS[config.mass]}, {TEMPERATURE[config.temperature]}"
    )


def start(task: str, utility: str, job: str) -> str:
    """What is asked for. `job` is the task of the tables; task u has none, and asks with the utility's phrase, or with
    its name if PHRASES does not have it."""
    if task == "u":
        return f"What household object should I use to {PHRASES.get(utility, f'do this: {utility_text(utility)}')}?"
    state = "" if task == "0" else ", in which state,"
    return f"I want to do this at home: {job}. What household object{state} should I use for {utility_text(utility)}?"


def question(start: str, task: str, options: list[str], ask: str, hint: bool) -> str:
    """The user's turn, which opens with `start`. With `ask` "json" the options are listed under letters; with "options"
    they are left out, because a small model prefers the one that is named first."""
    parts = [part for part in (start, GUIDANCE[task], HINT if hint else "") if part]
    if ask == "json":
        parts.append("Choose one of these.")
        listed = "\n".join(f"{LETTERS[place]}. {option}" for place, option in enumerate(options))
        demand = 'Reply with a JSON object that has one key, "answer", whose value is the letter, and nothing else.'
        return "\n".join([" ".join(parts), listed, demand])
    return " ".join(parts)


def answer_text(option: str) -> str:
    """An option as an assistant's complete answer. The log-likelihoods of these answers are compared."""
    return f"Use {option}."
