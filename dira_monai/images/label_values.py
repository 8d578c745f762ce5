"""What the values of label maps are: numbers of classes, or gray values between two ends."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..utils.errors import InputError
from .facts import MAX_CLASSES
from .find import PIL_SUFFIXES

MAX_VALUES = 8  # that an error lists, and that pictures of classes mostly have
DEFAULT_THRESHOLD = 127  # of the 2D bundle
MIDDLE = 0.25  # of the voxels above a threshold; soft edges and noise of JPEG are fewer
LOSSY = (".jpg", ".jpeg")
BITS_7 = 127  # more than classes are numbered by in pictures of 8 bits; masks end at 255


def count_values(array: np.ndarray) -> dict[float, int]:
    """How many voxels have each value, taken to three decimals as training does, in ascending order."""
    values, counts = np.unique(array, return_counts=True)
    found: dict[float, int] = {}
    for value, count in zip(np.round(values, 3).tolist(), counts.tolist(), strict=True):
        found[value] = found.get(value, 0) + count
    return found


def are_gray(counts: Mapping[float, int], files: Collection[str]) -> bool:
    """Whether values of label maps are two ends with noise and soft edges between them, and no numbers of classes.

    So are those of JPEG; those of other pictures that go beyond 127, if they are more than 32, or more than 8 and
    several are in the upper half; and more than 32 that are no whole numbers.

    Args:
        counts: voxels of each value in all of the files.
        files: the label maps.
    """
    names = [file.lower() for file in files]
    if any(name.endswith(LOSSY) for name in names):
        return len(counts) > 2
    many = len(counts) > MAX_CLASSES
    if all(name.endswith(PIL_SUFFIXES) for name in names) and max(counts) > BITS_7:
        return many or (len(counts) > MAX_VALUES and sum(2 * value > max(counts) for value in counts) > 1)
    return many and any(value != round(value) for value in counts)


def find_middle(counts: Mapping[float, int]) -> tuple[int, float]:
    """How many voxels have a value in the middle half between the lowest and the highest, and which most of them have.

    Noise of JPEG is near the ends, and soft edges are few voxels; a third class is many.
    """
    low, high = min(counts), max(counts)
    middle = {value: count for value, count in counts.items() if abs(2 * value - low - high) < (high - low) / 2}
    return sum(middle.values()), max(middle, key=middle.__getitem__, default=low)


def check_threshold(
    counts: Mapping[float, int], files: Collection[str], threshold: float, class_names: Sequence[str]
) -> str:
    """What a threshold makes of label maps with more than two values, in words; empty where there is nothing to say.

    Args:
        counts: voxels of each value in all of the files.
        files: the label maps.
        threshold: class 1 is above it.
        class_names: of both classes.

    Raises:
        InputError: if the threshold makes one class of all values that look like numbers of classes, or, being the
            bundle's own for 8 bits and so perhaps nobody's choice, two of more of them.
    """
    values = sorted(counts)
    above = [value for value in values if value > threshold]
    if are_gray(counts, files):
        middle, most = find_middle(counts)
        told = f"warning: {middle} voxels of the label maps lie between their ends, most at {most:g}"
        many = middle > MIDDLE * sum(counts[value] for value in above)
        return f"{told}: label_threshold {threshold:g} makes two classes of perhaps more" if many else ""
    shown = list_values([f"{value:g} ({counts[value]} voxels)" for value in values])
    upper = list_values([f"{value:g}" for value in above]) or "none"
    told = f"the label maps hold {shown}, and label_threshold {threshold:g} makes {class_names[1]} of {upper}"
    if 0 < len(above) < len(values) and (len(values) == 2 or threshold != DEFAULT_THRESHOLD):
        return told if len(values) > 2 else ""
    raise InputError(f"{told} and {class_names[0]} of the others; give {_find_cures(values, class_names[1])}.")


def _find_cures(values: Sequence[float], name: str) -> str:
    first, last = [f"--label_threshold {(low + high) / 2:g}" for low, high in (values[:2], values[-2:])]
    cures = f"{first}, where all but {values[0]:g} is {name}"
    if len(values) == 2:
        return cures
    several = "--label_threshold None and a class name for each value"
    if list(values) != [*range(len(values))]:
        several += f' with --label_values "[{", ".join(f"{value:g}" for value in values)}]"'
    return f"{cures}, {last}, where {values[-1]:g} alone is, or {several}"


def list_values(words: Sequence[str]) -> str:
    """The first words and the number of all where there are more."""
    return ", ".join(words[:MAX_VALUES]) + (f", ... ({len(words)} in all)" if len(words) > MAX_VALUES else "")
