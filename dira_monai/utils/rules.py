"""What a value that a user gives must be, in words and as a function."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

MOST = 10**6  # of what is counted: more epochs, channels or images of a step are a slip of the pen


class Rule(NamedTuple):
    """What a value must be."""

    told: str  # in words, behind "must be"
    fits: Callable[[Any, int], bool]  # whether a value fits, given the number of the images' axes; 0: not known

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(f"{self.told}, or {other.told}", lambda v, dims: self.fits(v, dims) or other.fits(v, dims))


def is_number(value: Any) -> bool:
    """Whether a value is a finite number and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any, least: int = 0, most: float = MOST) -> bool:
    """Whether a value is an integer in a range and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def is_text(value: Any) -> bool:
    """Whether a value is a text of more than blanks, without a null character."""
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def is_object(value: Any) -> bool:
    """Whether a value is what MONAI makes something of."""
    return isinstance(value, Mapping) and is_text(value.get("_target_"))


def is_expression(value: Any) -> bool:
    """Whether a value stands for another one: an expression or a reference of MONAI, or an object that it makes."""
    return is_object(value) or (isinstance(value, str) and value.startswith(("$", "@", "%")))


def number(told: str, fits: Callable[[float], bool]) -> Rule:
    """A finite number that fits."""
    return Rule(told, lambda v, dims: is_number(v) and fits(v))


def whole(least: int, most: int = MOST) -> Rule:
    """An integer in a range, its ends included."""
    return Rule(f"a whole number from {least} to {most}", lambda v, dims: is_whole(v, least, most))


def choice(*words: str) -> Rule:
    """One of some words."""
    return Rule(" or ".join(words), lambda v, dims: isinstance(v, str) and v in words)


def list_of(told: str, fits: Callable[[Any], bool], least: int = 0, different: bool = False) -> Rule:
    """A list of values that each fit, or are expressions."""

    def fit(value: Any, dims: int) -> bool:
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) < least:
            return False
        return all(fits(part) or is_expression(part) for part in value) and not (different and _repeats(value))

    return Rule(f"a list of {told}", fit)


def each_axis(told: str, fits: Callable[[Any], bool]) -> Rule:
    """A list with a value for each axis of the images."""
    listed = list_of(told, fits)

    def fit(value: Any, dims: int) -> bool:
        return listed.fits(value, dims) and len(value) in ((dims,) if dims else (2, 3))

    return Rule(f"{told} for each axis", fit)


def rising(told: str, fits: Callable[[Any], bool] = is_number, equal: bool = False) -> Rule:
    """Two numbers, the second the larger one, or equal where that is allowed."""
    pair = list_of(told, fits, 2)

    def fit(value: Any, dims: int) -> bool:
        if not pair.fits(value, dims) or len(value) != 2:
            return False
        return any(map(is_expression, value)) or value[0] < value[1] or (equal and value[0] == value[1])

    return Rule(told, fit)


def _repeats(values: Sequence[Any]) -> bool:
    return any(value in values[:index] for index, value in enumerate(values))


NONE = Rule("None", lambda v, dims: v is None)
SWITCH = Rule("True or False", lambda v, dims: type(v) is bool)
TEXT = Rule("a text", lambda v, dims: is_text(v))
PATH = Rule("a path", lambda v, dims: is_text(v))
TEXTS = list_of("texts", is_text)
OBJECT = Rule("an object with a _target_", lambda v, dims: is_object(v))
OBJECTS = list_of("objects with a _target_", is_object)
COUNT, COUNT_OR_0 = whole(1), whole(0)
NUMBER = number("a number", lambda v: True)
POSITIVE = number("a number above 0", lambda v: v > 0)
WEIGHT = number("a number from 0", lambda v: v >= 0)
SHARE = number("a number from 0 to 1", lambda v: 0 <= v <= 1)
PART = number("a number from 0 and below 1", lambda v: 0 <= v < 1)
WITHIN = number("a number above 0 and below 1", lambda v: 0 < v < 1)
NOT_NOTHING = number("a number above 0 and at most 1", lambda v: 0 < v <= 1)
RANGE = rising("two rising numbers")
SIZE = each_axis("a whole number of voxels from 1", lambda n: is_whole(n, 1))


def suggest(name: str, known: Iterable[str]) -> str:
    """A question for the nearest known name; empty where none is near."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean --{close[0]}?" if close else ""
