"""The table of an inference: what became of each image."""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...utils.errors import InputError
from ...utils.files import write_csv
from ...utils.tables import format_table

DONE, FAILED, OPEN = "done", "failed", "not reached"
BASE = ("file", "status", "seconds", "output", "note")
SHOWN = 20  # rows of what was done that are printed
PAUSE = 30.0  # seconds between two writings of the table


@dataclass
class Result:
    """What became of one image.

    Attributes:
        file: its path.
        output: file of the label map, relative to the folder of the results; empty for classification.
        status: done, failed or not reached.
        seconds: that loading and all that followed took.
        note: why it failed, or what is unusual.
        truth: the classes that are present, joined by ``|``; empty where that is not known.
        predicted: the most probable class; with several labels those of at least 0.5, joined by ``|``.
        probabilities: of the classes, as numbers in texts.
    """

    file: str
    output: str = ""
    status: str = OPEN
    seconds: float = 0.0
    note: str = ""
    truth: str = ""
    predicted: str = ""
    probabilities: list[str] = field(default_factory=list)


@dataclass
class Inference:
    """The results of an inference, also written as ``infer.csv`` and, for classification, ``probabilities.csv``.

    Attributes:
        output_dir: folder of the results.
        rows: one for each image.
        class_names: of the probabilities; empty for segmentation.
        left_out: how many images of the folders were not taken.
        warning: how many images were trained on; empty where none.
    """

    output_dir: Path
    rows: list[Result]
    class_names: Sequence[str] = ()
    left_out: int = 0
    warning: str = ""
    earlier: list[list[str]] = field(default_factory=list)  # rows of other images in the table that was there
    written: float = 0.0

    @property
    def table(self) -> Path:
        """The file of the table."""
        return self.output_dir / "infer.csv"

    @property
    def failed(self) -> list[Result]:
        """The images without a result."""
        return [row for row in self.rows if row.status != DONE]

    @property
    def columns(self) -> list[str]:
        """Names of the table's columns."""
        return [*BASE, *(("truth", "predicted", *self.class_names) if self.class_names else ())]

    def _cells(self, row: Result) -> list[str]:
        cells = [row.file, row.status, f"{row.seconds:.2f}", row.output, row.note]
        probabilities = row.probabilities or [""] * len(self.class_names)
        return cells + ([row.truth, row.predicted, *probabilities] if self.class_names else [])

    def save(self, pause: float = 0.0) -> None:
        """Write the tables, unless they were written in the last ``pause`` seconds."""
        if time.monotonic() - self.written < pause:
            return
        rows = [*self.earlier, *map(self._cells, self.rows)]
        _write(self.table, [self.columns, *rows])
        if self.class_names:
            done = [[row[0], *row[len(BASE) + 2 :]] for row in rows if row[1] == DONE]
            _write(self.output_dir / "probabilities.csv", [["file", *self.class_names], *done])
        self.written = time.monotonic()

    def describe(self) -> list[str]:
        """Lines for a person: the table, failures first where it is long, and at the end where everything is."""
        last = "predicted" if self.class_names else "output"
        rows = self.rows if len(self.rows) <= SHOWN else [*self.failed, *self.done[:SHOWN]]
        cells = [[row.file, row.status, f"{row.seconds:.2f}", getattr(row, last), row.note] for row in rows]
        lines = [_printable(format_table([["file", "status", "seconds", last, "note"], *cells]))]
        if len(rows) < len(self.rows):
            lines.append(f"... and {len(self.rows) - len(rows)} more that are done")
        if self.left_out:
            lines.append(f"{self.left_out} images in the folders were left out: label maps, results, other suffixes")
        if known := [row for row in self.done if row.truth]:
            right = sum(row.truth == row.predicted for row in known)
            lines.append(f"the truth is known of {len(known)} images, of which {right} are predicted right")
        count = f"{len(self.done)} of {len(self.rows)} images"
        return [*lines, f"{self.output_dir} holds the results of {count}; {self.table} lists them"]

    @property
    def done(self) -> list[Result]:
        """The images with a result."""
        return [row for row in self.rows if row.status == DONE]


def read_earlier(path: Path, columns: Sequence[str], files: set[str]) -> tuple[list[list[str]], dict[str, str]]:
    """Rows of other images in a table that is there already, and all outputs that it lists by their images.

    Args:
        path: of the table.
        columns: that it must have, where it has rows of other images.
        files: images whose rows are replaced.

    Raises:
        InputError: if it is another table.
    """
    if not path.exists():
        return [], {}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        head, *rows = [row for row in csv.reader(stream) if row] or [[]]
    if tuple(head[: len(BASE)]) != BASE:
        raise InputError(f"{path}: is no table of an inference; give another --output_dir")
    others = [row for row in rows if row[0] not in files]
    if others and head != list(columns):
        raise InputError(f"{path}: is of an inference with other classes; give another --output_dir")
    return others, {row[0]: row[BASE.index("output")] for row in rows}


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    write_csv(path, rows, lineterminator="\n")


def _printable(text: str) -> str:
    """The text with ``?`` for bytes of file names that are no letters."""
    return text.encode("utf-8", "replace").decode()
