"""Images of a folder on their way to a datalist: each with its patient, split and label, or with why it is left out."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ..images.facts import check_facts, looks_like_image, measure_image
from ..images.find import (
    Image,
    count_other_formats,
    files_of,
    find_images,
    first_file,
    is_label_map,
    is_series,
    kind_folder,
    read_image,
    stem,
    without_label_maps,
    without_map_words,
)
from ..images.measuring import measure_each
from ..utils.errors import InputError
from .checks import LISTS
from .layouts import case_of, join_modalities
from .patients import choose_rule, find_patients, read_patient_table
from .splits import SPLITS
from .tables import TABLES

OF_FILES = ("few_values", "blurred_map", "counts")  # facts that are looked at once, and stand in no list
NO_IMAGES = ("derivatives", "overlay", "overlays")  # folders of processed images
Placed = tuple[dict, str]  # an entry of a datalist, and the word that a table or folder gives for its split
Label = int | list[int | None] | str  # of a class, 1, 0 or None (not known) for each class, or the file of a label map


class Row(NamedTuple):
    """An image with what is said of it."""

    image: Image
    words: str | list[str] = ""  # what a table says of its label: one cell, or one a class
    patient: str = ""
    split: str = ""
    place: str = ""  # what an error calls it
    label: Label = ""


@dataclass
class Found:
    """The images of a folder that may be used, and the others."""

    root: Path
    rows: list[Row]
    skipped: list[dict] = field(default_factory=list)  # image and reason
    excluded: Counter[str] = field(default_factory=Counter)  # images that the user leaves out, by the reason
    patient_rule: str = ""
    label_maps: int = 0  # left out
    named_as_maps: int = 0  # images that are taken anyway
    other_modalities: int = 0  # files of them
    other_formats: dict[str, int] = field(default_factory=dict)  # files of each suffix
    fill: Callable[[], None] | None = None  # gives the rows their patients anew

    @classmethod
    def search(cls, root: Path) -> tuple["Found", list[Image]]:
        """What is left out of a folder, no rows yet, and every image in it; a folder that cannot be read is skipped."""
        found = cls(root, [])

        def note(error: OSError) -> None:
            inner = os.path.relpath(error.filename, root)
            name = str(root) if inner == os.curdir else inner
            found.skip(name, f"{name} cannot be searched: {error.strerror}.")

        everything = find_images(root, note)
        found.other_formats = count_other_formats(root, everything)
        return found, everything

    def notes(self) -> dict[str, Any]:
        """What a datalist says of the files that are in no list."""
        return {
            "label_maps": self.label_maps,
            "named_as_maps": self.named_as_maps,
            "other_modalities": self.other_modalities,
            "other_formats": self.other_formats,
            "skipped": self.skipped,
            "excluded": dict(self.excluded),
        }

    def without_label_maps(self, everything: Sequence[Image]) -> list[Image]:
        """Those that are no label map by name, and those that are but hold gray values and have no image of their name.

        Processed images of ``derivatives`` and overlays stay out, so do those of folders beside those of images and
        label maps. What is left out or taken anyway is counted.
        """
        kept = {first_file(image): image for image in without_label_maps(everything)}
        partners = {_case_of(name) for file in kept for name in (file, os.path.dirname(file))}
        doubtful = [
            image
            for image in everything
            if first_file(image) not in kept
            and is_label_map(first_file(image))
            and kind_folder(first_file(image))[0] not in NO_IMAGES
            and _case_of(first_file(image)) not in partners
        ]
        facts = measure_each(_measure_look, doubtful, self.root)
        images = [image for image, fact in zip(doubtful, facts, strict=True) if fact == {"image": True}]
        beside = [i for i in map(first_file, everything) if i not in kept and not is_label_map(i)]
        self.excluded.update(f"in {os.path.dirname(file)}" for file in beside)
        self.named_as_maps = len(images)
        self.label_maps = len(everything) - len(kept) - len(images) - len(beside)
        return sorted([*kept.values(), *images], key=first_file)

    def skip(self, image: Image, reason: str) -> None:
        """Note why an image cannot be used."""
        self.skipped.append({"image": image, "reason": reason})

    def take_modalities(self, images: Sequence[Image], modalities: Sequence[str]) -> list[Image]:
        """The images that have one file of each modality, if any is asked for; all others are left out."""
        if not modalities:
            return list(images)
        joined, broken, others = join_modalities(images, modalities)
        self.skipped += [{"image": file, "reason": reason} for file, reason in broken]
        self.other_modalities = others
        return joined

    def fill_patients(
        self, rule: str, columns: Sequence[str | None] = (), images: Sequence[Image] | None = None
    ) -> None:
        """Give all rows patients by the rule, and the split of its table where they have none.

        Args:
            rule: of ``find_patients``, "auto" or a CSV file.
            columns: of the patient and the file in the CSV file, see ``read_patient_table``.
            images: by which a rule judges, where paths begin with folders that are none of patients.
        """
        own = [row.image for row in self.rows]
        if rule.lower().endswith(TABLES):
            filled = read_patient_table(rule, own, *columns)
            self.patient_rule = self.table_rule(rule)
        else:
            below = own if images is None else images
            if len({first_file(image) for image in below}) < len(own):  # the same name in several of these folders
                below = own
            self.patient_rule = choose_rule(below) if rule == "auto" else rule
            filled = [(name, "") for name in find_patients(below, self.root, self.patient_rule)]
        pairs = zip(self.rows, filled, strict=True)
        self.rows = [row._replace(patient=name, split=row.split or split) for row, (name, split) in pairs]

    def table_rule(self, table: str | Path) -> str:
        """The path of a table of patients: from the folder where it lies there, else from /."""
        path = Path(os.path.abspath(table))
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def exclude(self, known: Collection[str], patients_of: str | None = None) -> None:
        """Leave out the rows of other splits than the known ones, and all patients of one split, which must exist."""
        words = sorted({row.split for row in self.rows})
        if patients_of is not None and patients_of not in words:
            raise InputError(
                f"exclude_patients_of must be a split of the data ({', '.join(words)}), got {patients_of!r}."
            )
        patients = {row.patient for row in self.rows if row.split == patients_of} - {""}
        rows, self.rows = self.rows, []
        for row in rows:
            if row.split.lower() not in known:
                self.excluded[row.split] += 1
            elif row.patient in patients:
                self.excluded[f"of patients of {patients_of}"] += 1
            else:
                self.rows.append(row)

    def drop_label_maps(self, facts: Sequence[dict | InputError]) -> list[dict | InputError]:
        """Leave out the rows that are label maps by their content; the facts of the others.

        Such an image holds few values, as ``measure_array`` tells, where another one of the same shape does not that
        has the same name, patient or folder; one that JPEG blurred only where it has the same name. The rule gives the
        other rows their patients anew.
        """
        pairs = zip(self.rows, facts, strict=True)
        near = [_near(row, fact) if isinstance(fact, dict) else set() for row, fact in pairs]
        few = [isinstance(fact, dict) and (fact["few_values"] or fact["blurred_map"]) for fact in facts]
        images = set[tuple]().union(*(places for places, small in zip(near, few, strict=True) if not small))
        maps = [small and not images.isdisjoint(places) for places, small in zip(near, few, strict=True)]
        if any(maps):
            self.label_maps += sum(maps)
            self.rows = [row for row, is_map in zip(self.rows, maps, strict=True) if not is_map]
            if self.fill:
                self.fill()
        return [fact for fact, is_map in zip(facts, maps, strict=True) if not is_map]

    def make_entries(
        self,
        facts: Sequence[dict | InputError],
        spatial_dims: int,
        in_channels: int,
        begin: Callable[[Row], dict],
    ) -> list[Placed]:
        """Entries of a datalist with their splits; what cannot be used by the network is skipped.

        An entry is what ``begin`` makes of the row, the patient and the facts of ``measure_each``.
        """
        entries = []
        for row, fact in zip(self.rows, facts, strict=True):
            try:
                if isinstance(fact, InputError):
                    raise fact
                name = first_file(row.image) if is_series(row.image) else " + ".join(files_of(row.image))
                check_facts(name, fact, spatial_dims, in_channels)
                if not row.patient:
                    raise InputError(f"{first_file(row.image)} has no patient in the patient table.")
                known = {name: value for name, value in fact.items() if name not in OF_FILES}
                entries.append((begin(row) | {"patient": row.patient, **known}, row.split))
            except InputError as error:
                self.skip(row.image, str(error))
        return entries


def find_unlabeled(images: Sequence[Image], root: Path) -> list[Image]:
    """The images of a folder without the label maps, told by name and content as the lists of trainings tell them."""
    found = Found(root, [])
    found.rows = [Row(image) for image in found.without_label_maps(images)]
    with suppress(InputError):  # names that leave patients open
        found.fill_patients("auto")
    crowds = Counter(chain.from_iterable(map(_places, found.rows)))
    facts = measure_each(partial(_measure_near, crowds=crowds), found.rows, root)
    found.drop_label_maps(facts)
    return [row.image for row in found.rows]


def _measure_near(row: Row, directory: str | Path, crowds: Counter[tuple]) -> dict:
    """The facts of a file that shares its name, patient or folder with another one."""
    if is_series(row.image) or all(crowds[place] == 1 for place in _places(row)):
        raise InputError(f"{first_file(row.image)} cannot be the label map of another image.")
    return measure_image(row.image, directory)


def _case_of(file: str) -> str:
    return case_of(f"{without_map_words(stem(file))}.x")


def _measure_look(image: Image, directory: str | Path) -> dict:
    array, meta = read_image(image, directory)
    return {"image": looks_like_image(array, len(meta["spatial_shape"]))}


def _near(row: Row, fact: dict) -> set[tuple]:
    """What an image and its label map share: the shape, and the name, patient or folder."""
    places = _places(row)[:1] if fact["blurred_map"] and not fact["few_values"] else _places(row)
    return {(tuple(fact["shape"]), *place) for place in places}


def _places(row: Row) -> list[tuple[str, str]]:
    file = first_file(row.image)
    patient = [("patient", row.patient)] if row.patient else []
    return [("name", stem(file)), ("folder", os.path.dirname(file)), *patient]


def join_copies(entries: Sequence[Placed]) -> tuple[list[Placed], list[list[str]]]:
    """The entries, where patients that share an image have one ``group``, by which they are split, and these images.

    Images are the same by their ``digest``. Where they are in different splits of a table or folder, test keeps them,
    else validation. Where copies join all patients, as synthetic ones may, these stay as they are named.
    """
    same: dict[str, list[Placed]] = {}
    for placed in entries:
        same.setdefault(placed[0]["digest"], []).append(placed)
    groups: dict[str, str] = {}
    copies: list[list[str]] = []
    dropped: set[int] = set()

    def group_of(patient: str) -> str:
        return patient if groups.get(patient, patient) == patient else group_of(groups[patient])

    for alike in same.values():
        patients = {entry["patient"] for entry, _ in alike}
        keep = max((SPLITS[word.lower()] for _, word in alike), key=LISTS.index)
        dropped |= {id(entry) for entry, word in alike if SPLITS[word.lower()] != keep}
        if len(patients) > 1 or any(id(entry) in dropped for entry, _ in alike):
            copies.append([first_file(entry["image"]) for entry, _ in alike])
            groups |= dict.fromkeys(map(group_of, patients), min(map(group_of, patients)))
    if len({group_of(entry["patient"]) for entry, _ in entries}) == 1:
        return list(entries), copies
    for entry, _ in entries:
        if (group := group_of(entry["patient"])) != entry["patient"] or group in groups:
            entry["group"] = group
    return [placed for placed in entries if id(placed[0]) not in dropped], copies


def majority(facts: Sequence[dict | InputError]) -> int:
    """The number of spatial dimensions that most images have, the smaller of two that are equally frequent."""
    counts = Counter(len(fact["shape"]) for fact in facts if isinstance(fact, dict))
    return max(sorted(counts), key=counts.__getitem__, default=0)
