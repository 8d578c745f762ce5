"""Classes of a labeled folder, found in its tables, folders and label maps, and a seed that splits them well."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...datalists.checks import LISTS, first_names
from ...datalists.classes import LABEL_COLUMNS, find_labels, find_table
from ...datalists.label_maps import find_label_maps, label_folder
from ...datalists.layouts import shape_of
from ...datalists.options import NO_CLASS, LabelOptions, split_words
from ...datalists.patients import PATIENT_COLUMNS
from ...datalists.rows import Row
from ...datalists.splits import SPLITS, split_entries
from ...datalists.tables import FILE_COLUMNS, find_column, read_table
from ...images.find import read_image
from ...images.label_values import are_gray, count_values, list_values
from ...utils.errors import InputError
from ...utils.parallel import parallel_map
from .facts import NONE, Choice

SEEDS = 20  # of the split, that are tried
STATES = {"0", "1", "-1", "0.0", "1.0", "-1.0", "", "nan"}  # in a table of one column a class
TASKLESS = ["a", "b"]  # classes of options that are only asked where things lie


def find_classes(root: Path, options: LabelOptions) -> dict[str, Choice]:
    """Values of a fine-tuning bundle that say what the labels of a folder mean, and perhaps the seed of its split.

    Args:
        root: the folder.
        options: what the user and the bundle say; their classes are not looked at.

    Raises:
        InputError: if there are no labels, or fewer than two classes.
    """
    options = replace(options, class_names=TASKLESS, label_threshold=None, label_values=None, multi_label=False)
    if options.task == "segmentation":
        return _find_map_classes(root, options)
    return _find_image_classes(root, options)


def _find_map_classes(root: Path, options: LabelOptions) -> dict[str, Choice]:
    found = find_label_maps(root, options)
    found.exclude(SPLITS, options.exclude_patients_of)
    maps = [str(row.label) for row in found.rows]
    holds = list(parallel_map(lambda file: _values_of(file, root), maps, "reading label maps", None))
    counts = sum(map(Counter[float], holds), Counter[float]())
    values = sorted(counts)
    if len(values) < 2:
        raise InputError(f"the label maps of {root} hold {values or 'nothing that can be read'}; nothing to learn.")
    told = f"the label maps hold {_shown(values)}"
    if are_gray(counts, maps):
        threshold = (values[0] + values[-1]) // 2
        choices = {
            "class_names": Choice(["background", "foreground"], f"{len(maps)} masks of gray values"),
            "label_threshold": Choice(threshold, f"half of {values[-1]:g}; {told}"),
            "label_values": Choice(NONE, "a threshold separates the classes"),
        }
        presence = [{int(value > threshold) for value in held} for held in holds]
    else:
        others = [f"class_{value:g}" for value in values[1:]] if len(values) > 2 else ["foreground"]
        folders = [label_folder(root, options.labels)] if options.labels else []
        names = next(filter(None, (_given_names(folder, values) for folder in [*folders, root])), None) or [
            "background",
            *others,
        ]
        in_order = values == list(range(len(values)))
        choices = {
            "class_names": Choice(names, told),
            "label_threshold": Choice(NONE, "the values are classes"),
            "label_values": Choice(NONE if in_order else values, told),
        }
        numbers = {value: number for number, value in enumerate(values)}
        presence = [{numbers[value] for value in held} for held in holds]
    return choices | _choose_seed(found.rows, presence, options)


def _values_of(file: str, root: Path) -> dict[float, int]:
    """The voxels of each value of a label map; none where it cannot be read, which the list then says."""
    try:
        counts = count_values(read_image(file, root)[0])
    except InputError:
        return {}
    return {int(value) if value == int(value) else value: n for value, n in counts.items() if np.isfinite(value)}


def _shown(values: Sequence[float]) -> str:
    return f"the values {list_values([f'{value:g}' for value in values])}"


def _given_names(root: Path, values: Sequence[float]) -> list[str]:
    """Names of the values in a ``dataset.json`` of the Medical Segmentation Decathlon, nnU-Net or merged masks."""
    try:
        content = json.loads((root / "dataset.json").read_text(encoding="utf-8-sig"))["labels"]
        names = {
            int(key if str(key).isdecimal() else name): name if str(key).isdecimal() else key
            for key, name in content.items()
        }
        return [str(names[int(value)]) for value in values]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []


def _find_image_classes(root: Path, options: LabelOptions) -> dict[str, Choice]:
    table, columns = find_table(root, options.labels), _class_columns(root, options)
    if columns:
        options = replace(options, class_names=columns, multi_label=True)
    found = find_labels(root, options)
    found.exclude(SPLITS, options.exclude_patients_of)
    if not table:
        _refuse_patients(root, found.rows)
    several = bool(columns) or any(len(split_words(str(row.words), True)) > 1 for row in found.rows)
    held = [_words_of(row, columns, several) for row in found.rows]
    names = columns or sorted({word for words in held for word in words if word}, key=_class_order)
    names = [name for name in names if not (several and name.lower() in NO_CLASS)]
    if len(names) < (1 if several else 2):
        raise InputError(f"{root} has the classes {names}, where two are needed; name the labels by --labels.")
    presence = [{names.index(word) for word in words if word in names} for words in held]
    seed = _choose_seed(found.rows, presence, options, len(names))
    if "seed" in seed:
        options = replace(options, seed=seed["seed"].value)
    rare = [] if columns else sorted(_absent_somewhere(found.rows, presence, options, len(names)))
    kept = [name for number, name in enumerate(names) if number not in rare]
    if len(kept) < (1 if several else 2):
        rare, kept = [], names
    counts = Counter(number for numbers in presence for number in numbers)
    listed = ", ".join(f"{counts[number]} {name}" for number, name in enumerate(names))
    source = "one column a class" if columns else "words of the table" if table else "folders"
    choices = {
        "class_names": Choice(kept, f"{source}: {listed}"),
        "multi_label": Choice(several, "an image may have several" if several else "an image has one"),
    }
    if rare:
        left_out = dict.fromkeys([names[number] for number in rare], NO_CLASS[-1] if several else None)
        reason = "training, validation or test has none of them, so nothing could be measured"
        choices["label_map"] = Choice(left_out, reason)
    return choices | seed


def _refuse_patients(root: Path, rows: Sequence[Row]) -> None:
    """Refuse folders that differ by a number alone and hold folders of the same words, as P01/benign, P02/benign."""
    above: dict[str, set[str]] = {}  # of the folders below
    for row in rows:
        parts = Path(row.place).relative_to(root).parts
        for word in parts[parts.index(str(row.words)) + 1 : -1][:1]:
            above.setdefault(word, set()).add(str(row.words))
    kinds = sorted({str(row.words) for row in rows})
    shared = sorted(word for word in above if len(above[word]) > 1 and shape_of(word) == word)
    grades = all(kind.isdecimal() and len(kind) == 1 for kind in kinds)
    if len({*map(shape_of, kinds)}) == 1 and shape_of(kinds[0]) != kinds[0] and len(shared) > 1 and not grades:
        raise InputError(
            f"{root} has the folders {first_names(kinds)}, such as patients have, and {first_names(shared)} in several "
            f'of them; name the classes by --class_names "{shared}" or --class_names "{kinds}".'
        )


def _class_order(word: str) -> tuple[bool, float, str]:
    """Words for no class come first, whole numbers by their value, others by the alphabet."""
    return (word.lower() not in NO_CLASS, float(word) if word.isdecimal() else 0.0, word)


def _class_columns(root: Path, options: LabelOptions) -> list[str]:
    """Columns of 1, 0 and not known in a table that has no column of labels."""
    table = find_table(root, options.labels)
    if table is None or options.label_column is not None:
        return []
    columns, cells = read_table(table, "table of labels")
    if find_column(columns, LABEL_COLUMNS):
        return []
    others = {*FILE_COLUMNS, *PATIENT_COLUMNS, "split", options.file_column or "", options.patient_column or ""}
    return [name for name in columns if not find_column([name], others) and {row[name] for row in cells} <= STATES]


def _words_of(row: Row, columns: Sequence[str], several: bool) -> set[str]:
    if isinstance(row.words, list):
        return {name for name, word in zip(columns, row.words, strict=True) if word in ("1", "1.0")}
    return {*split_words(row.words, several)}


def _choose_seed(
    rows: Sequence[Row], presence: Sequence[set[int]], options: LabelOptions, count: int | None = None
) -> dict[str, Choice]:
    """The first seed whose split leaves the fewest classes out of a list; none where that of the options does."""
    count = count or 1 + max(max(numbers, default=0) for numbers in presence)
    seeds = [options.seed, *(seed for seed in range(SEEDS) if seed != options.seed)]
    absent: dict[int, int] = {}
    for seed in seeds:
        absent[seed] = len(_absent_somewhere(rows, presence, replace(options, seed=seed), count))
        if not absent[seed]:
            break
    best = min(absent, key=absent.__getitem__)
    if best == options.seed:
        return {}
    return {"seed": Choice(best, "with it training, validation and test have more of the classes")}


def _absent_somewhere(rows: Sequence[Row], presence: Sequence[set[int]], options: LabelOptions, count: int) -> set[int]:
    """Numbers of the classes of which training, validation or test have no image, where they have any."""
    entries: list[tuple[dict[str, Any], str]] = [
        ({"patient": row.patient, "classes": numbers}, row.split) for row, numbers in zip(rows, presence, strict=True)
    ]
    lists: Mapping[str, Any] = split_entries(entries, options.test_fraction, options.validation_fraction, options.seed)
    there = [set().union(*(entry["classes"] for entry in lists[name])) for name in LISTS if lists[name]]
    return set(range(count)) - set.intersection(*there) if there else set()
