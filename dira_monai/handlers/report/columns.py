"""What a datalist says of its images, as groups of a few values each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = 6  # at most
VALUES = 10  # of a column, at most; more numbers become RANGES ranges
RANGES = 5
HIDDEN = ("image", "source", "sha256")
# facts of the files: after all others
MEASURED = ("patient", "shape", "channels", "spacing", "axcodes", "range", "mean", "note")


def find_columns(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """The value of each entry by column, None where it has none; of columns with 2 to ``VALUES`` different ones.

    Numbers of more values are put into ranges with about equally many images. A list of labels is a column for each.

    Args:
        entries: of a datalist.
    """
    names = [name for name in dict.fromkeys(n for entry in entries for n in entry) if name not in HIDDEN]
    found: dict[str, list[str | None]] = {}
    for name in sorted(names, key=lambda name: name in MEASURED):
        for title, values in _split(name, [entry.get(name) for entry in entries]).items():
            texts = _texts(values)
            if 2 <= len({text for text in texts if text is not None}) <= VALUES:
                found[title] = texts
    return dict(list(found.items())[:COLUMNS])


def _split(name: str, values: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """A list of labels as columns of their own; every other column as it is."""
    lists = [value for value in values if isinstance(value, list)]
    if name != "label" or not lists or len(lists) < len(values) or len({len(value) for value in lists}) > 1:
        return {name: values}
    return {f"{name} {i}": [value[i] for value in lists] for i in range(len(lists[0]))}


def _texts(values: Sequence[Any]) -> list[str | None]:
    """Values as words; numbers of many values as ranges."""
    known = [value for value in values if value not in (None, "")]
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in known)
    if numbers and len(set(known)) > VALUES:
        return _ranges(values, sorted(known))
    return [None if value in (None, "") else str(value) for value in values]


def _ranges(values: Sequence[Any], ordered: Sequence[float]) -> list[str | None]:
    """For each number the range in which it lies, such as "2 to 5"."""
    bounds = [ordered[round(i * (len(ordered) - 1) / RANGES)] for i in range(RANGES + 1)]
    texts: list[str | None] = []
    for value in values:
        place = 0 if value in (None, "") else max(0, min(RANGES - 1, sum(value >= bound for bound in bounds) - 1))
        texts.append(None if value in (None, "") else f"{bounds[place]:.4g} to {bounds[place + 1]:.4g}")
    return texts


def order_values(values: Sequence[str | None]) -> list[str]:
    """The different values, numbers by their size, else by the alphabet."""

    def size(text: str) -> tuple[float, str]:
        try:
            return float(text.split(" to ")[0]), text
        except ValueError:
            return math.inf, text

    return sorted({value for value in values if value is not None}, key=size)
