"""What a labeled datalist is made by, whether it can be, and what the words of a label mean."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle.header import check_values
from ..utils.errors import InputError

TASKS = ("segmentation", "classification")
TEST_FRACTION = 0.2
VALIDATION_FRACTION = 0.1
NO_CLASS = ("", "none", "no finding")  # in a table of several labels: all classes are 0
MAX_WORDS = 20  # that an error lists
REST = "*"  # in label_map: all other words
ONLY_FOR = {  # task: options that mean nothing for the other one
    "segmentation": ("label_threshold", "label_values"),
    "classification": ("multi_label", "label_column", "label_map"),
}


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What a labeled datalist depends on, and records.

    Args:
        task: segmentation or classification.
        spatial_dims: 2 or 3; by default what most images have.
        in_channels: channels that every image must have, by default one a modality; gray images fit 3.
        class_names: such as "[background, lung]", in the order of their numbers; in segmentation background is first.
        multi_label: an image may have any number of the classes.
        label_threshold: label maps have class 1 where their value is above.
        label_values: the value of each class in the label maps, such as "[0, 255]", where these are not 0, 1, 2, ...
        label_column: name of the label's column in the CSV file.
        label_map: class of a word in the CSV file, or None to leave its rows out, such as "{virus: pneumonia}"; the
            word * stands for all others.
        modalities: such as flair,t1: an image is these files of a case, one a channel; others are left out.
        labels: folder of the label maps, or CSV file of the labels; by default looked for.
        patient: auto, a rule of ``find_patients`` (dicom, name, folder, file, case, path, prefix1, ...), or a CSV file
            with the columns file, patient and perhaps split.
        patient_column: name of the patient's column in the CSV files.
        file_column: name of the file's column in the CSV files.
        test_fraction: part of the training patients for test, where no table gives them; 0 for none.
        validation_fraction: part of the other patients for validation, where no table gives them.
        seed: of the draws of these patients.
        exclude_patients_of: a split of the table, whose patients are left out of all lists.
        pictures_only: in 2D skip all but PNG, JPEG, TIFF and BMP, which the bundles read unless told otherwise.
        reader: of the images, that training gets in place of the bundle's; what a reader of MONAI reads otherwise than
            dira_monai.ScanReader is skipped.
        label_reader: the same of the label maps.
    """

    task: str
    spatial_dims: int | None = None
    in_channels: int | None = None
    class_names: Sequence[str]
    multi_label: bool = False
    label_threshold: float | None = None
    label_values: Sequence[float] | None = None
    label_column: str | None = None
    label_map: Mapping[str, str | None] | None = None
    labels: str | None = None
    modalities: str | Sequence[str] | None = None
    patient: str = "auto"
    patient_column: str | None = None
    file_column: str | None = None
    test_fraction: float = TEST_FRACTION
    validation_fraction: float = VALIDATION_FRACTION
    seed: int = 0
    exclude_patients_of: str | None = None
    pictures_only: bool = True
    reader: str | None = None
    label_reader: str | None = None

    @property
    def readers(self) -> list[str | None]:
        """By which images and, in segmentation, label maps are read in training, see ``read_as_trained``."""
        stock = "PILReader" if self.pictures_only and self.spatial_dims != 3 else None
        return [self.reader or stock, self.label_reader or stock][: 2 if self.task == "segmentation" else 1]

    def check(self) -> None:
        """Refuse an option that is out of range, does not fit the number of classes, or belongs to the other task."""
        if self.task not in TASKS:
            raise InputError(f"task must be segmentation or classification, got {self.task!r}.")
        names, least = self.class_names, 1 if self.multi_label else 2
        words = names if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) else ()
        if len(set(words)) < max(least, len(words)):
            raise InputError(f"class_names must be a list of at least {least} different names, got {names!r}.")
        check_values(vars(self), self.spatial_dims or 0, defaults=True)
        for option in ONLY_FOR[TASKS[1 - TASKS.index(self.task)]]:
            if value := getattr(self, option):
                raise InputError(f"{option} is invalid for the task {self.task}, got {value!r}.")
        self._check_label_values()
        self._check_label_map()

    def _check_label_values(self) -> None:
        count, threshold, values = len(self.class_names), self.label_threshold, self.label_values
        if threshold is not None and values is not None:
            raise InputError(
                f"label_threshold ({threshold}) and label_values ({values}) exclude each other; beside label_values "
                "give --label_threshold None, since a bundle may have one of its own."
            )
        if threshold is not None and count != 2:
            raise InputError(f"label_threshold separates 2 classes, got {threshold!r} for {count}.")
        if values is not None and len(values) != count:
            raise InputError(f"label_values must be {count} different values, one a class, got {values!r}.")

    def _check_label_map(self) -> None:
        for word, name in (self.label_map or {}).items():
            if name not in (*self.class_names, None) and not (self.multi_label and str(name).lower() in NO_CLASS):
                raise InputError(
                    f"label_map makes {name!r} of {word!r}, which is none of the classes "
                    f"{', '.join(self.class_names)}, nor None."
                )


def split_words(cell: str, multi_label: bool) -> list[str]:
    """The words of a cell: one, or with ``multi_label`` those between ``|`` or in a list such as ``['a', 'b']``.

    A list of one word is that word in any case.
    """
    listed = re.fullmatch(r"\[(.*)\]", cell, re.DOTALL)
    parts = listed[1].split(",") if listed else cell.split("|")
    words = [part.strip().strip("'\"").strip() for part in parts]
    return words if multi_label or (listed and len(words) == 1) else [cell]


def find_class(word: str, options: LabelOptions) -> str | None:
    """The class that a word stands for, "" where it says that there is none, None where it leaves the row out.

    Raises:
        KeyError: if it is no class.
    """
    names, words = list(options.class_names), options.label_map or {}
    number = word.removesuffix(".0")  # as pandas writes whole numbers of a column with gaps
    if word not in {*words, *names} and number.isdecimal():
        word = number
    if word in words or word in names:
        return words.get(word, word)
    if not word or (options.multi_label and word.lower() in NO_CLASS):
        return ""
    given = [key for key, name in words.items() if name is not None and key.isdecimal() and int(key) < len(names)]
    are_words = given or any(map(str.isdecimal, names))  # then no number is the place of a class
    if not (options.multi_label or are_words) and word.isdecimal() and int(word) < len(names):
        return names[int(word)]
    return words[REST]


def refuse_words(
    words: Iterable[str], find: Callable[[str], object], class_names: Sequence[str], where: str | Path
) -> None:
    """Refuse words that are no class, all at once.

    Args:
        words: of a table or of folders.
        find: raises a KeyError for a word that is none.
        class_names: that are known.
        where: the first word stands, or the table.

    Raises:
        InputError: names the words with their numbers, the most frequent first.
    """
    unknown: Counter[str] = Counter()
    for word in words:
        try:
            find(word)
        except KeyError:
            unknown[word] += 1
    if not unknown:
        return
    found = ", ".join(f"{word!r} ({count})" for word, count in unknown.most_common(MAX_WORDS))
    more = f", and {len(unknown) - MAX_WORDS} others" if len(unknown) > MAX_WORDS else ""
    first = next(iter(unknown))
    raise InputError(
        f"{where}: {found}{more} {'is' if len(unknown) == 1 else 'are'} none of the classes {', '.join(class_names)}; "
        f'say what they are by --label_map "{{{first!r}: CLASS}}", with None instead of CLASS to leave such rows out, '
        f"and {REST!r} for all others."
    )
