"""Images of a folder on their way to a datalist: each with its patient, split and label, or with why it is left out."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..images.facts import check_facts
from ..images.find import Image, first_file
from ..utils.errors import InputError
from .patients import choose_rule, find_patients, read_patient_table

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

    def skip(self, image: Image, reason: str) -> None:
        """Note why an image cannot be used."""
        self.skipped.append({"image": image, "reason": reason})

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
        if rule.lower().endswith(".csv"):
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

    def make_entries(
        self,
        facts: Sequence[dict | InputError],
        spatial_dims: int,
        in_channels: int,
        begin: Callable[[Row], dict],
    ) -> list[tuple[dict, str]]:
        """Entries of a datalist with their splits; what cannot be used by the network is skipped.

        An entry is what ``begin`` makes of the row, the patient and the facts of ``measure_each``.
        """
        entries = []
        for row, fact in zip(self.rows, facts, strict=True):
            try:
                if isinstance(fact, InputError):
                    raise fact
                check_facts(first_file(row.image), fact, spatial_dims, in_channels)
                if not row.patient:
                    raise InputError(f"{first_file(row.image)} has no patient in the patient table.")
                entries.append((begin(row) | {"patient": row.patient, **fact}, row.split))
            except InputError as error:
                self.skip(row.image, str(error))
        return entries


def majority(facts: Sequence[dict | InputError]) -> int:
    """The number of spatial dimensions that most images have, the smaller of two that are equally frequent."""
    counts = Counter(len(fact["shape"]) for fact in facts if isinstance(fact, dict))
    return max(sorted(counts), key=counts.__getitem__, default=0)
