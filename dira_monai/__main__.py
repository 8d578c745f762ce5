"""The commands: ``python -m dira_monai COMMAND``; ``--help`` lists them.

Fire runs a command before it complains of words that are left over. A command therefore is a generator of the lines it
prints, started when all words are understood: a mistyped option ends the program before anything is done.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fire
from fire.decorators import SetParseFns

from .datalist import MAX_ROWS, describe_datalist, make_datalist, summarize_datalist, write_datalist
from .errors import InputError
from .scans import first_file


class _Lines:
    """What a command prints; it runs when fire asks for the text, and has no member that a stray word could name."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def __str__(self) -> str:
        return "\n".join(self._lines)


def _later(command: Callable[..., Iterator[str]]) -> Callable[..., _Lines]:
    @functools.wraps(command)
    def deferred(*args: object, **kwargs: object) -> _Lines:
        return _Lines(command(*args, **kwargs))

    return deferred


@_later
@SetParseFns(str, directory=str, output=str, patient=str, patient_column=str, file_column=str)
def datalist(
    directory: str,
    *,
    output: str = "datalist.json",
    spatial_dims: int | None = None,
    in_channels: int = 1,
    patient: str = "auto",
    patient_column: str | None = None,
    file_column: str | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
    strict: bool = False,
    workers: int | None = None,
) -> Iterator[str]:
    """Check every image of a folder, split the patients into training and validation, and write the datalist.

    Args:
        directory: folder of PNG, JPEG, NIfTI, NRRD, MHD or DICOM files, searched with its sub-folders.
        output: JSON file to write.
        spatial_dims: 2 or 3; by default what most images have.
        in_channels: channels that every image must have; gray images fit 3.
        patient: auto, dicom (PatientID), folder, file, or a CSV file with the columns file, patient and perhaps split.
        patient_column: name of the patient's column in the CSV file.
        file_column: name of the file's column in the CSV file.
        validation_fraction: part of the patients kept for validation, 0.1 by default.
        seed: of the draw of these patients.
        strict: stop at the first image that cannot be used.
        workers: threads that read images.
    """
    made = make_datalist(
        directory,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        patient=patient,
        patient_column=patient_column,
        file_column=file_column,
        validation_fraction=validation_fraction,
        seed=seed,
        strict=strict,
        workers=workers,
    )
    write_datalist(made, output)
    yield from describe_datalist(made).splitlines()
    entries = [*made["training"], *made["validation"]]
    yield from _group("note", [(first_file(entry["image"]), entry["note"]) for entry in entries if entry["note"]])
    yield from _group("skipped", [(first_file(entry["image"]), entry["reason"]) for entry in made["skipped"]])
    yield f"{output}: {summarize_datalist(made)}"


def _group(title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    """One line a text, with the first name and the number of further ones that it holds for."""
    names: dict[str, list[str]] = {}
    for name, text in rows:
        names.setdefault(text.removeprefix(name).strip(" .:"), []).append(name)
    for text, group in list(names.items())[:MAX_ROWS]:
        yield f"{title}: {group[0]}{f' and {len(group) - 1} more' if len(group) > 1 else ''}: {text}"
    if len(names) > MAX_ROWS:
        yield f"{title}: {len(names) - MAX_ROWS} other reasons, all in the file"


@_later
@SetParseFns(str, directory=str, kind=str)
def phantom(directory: str, *, kind: str = "ct", count: int = 24, seed: int = 0) -> Iterator[str]:
    """Write built-in phantoms, which are drawn and no real scans, with their labels.

    Args:
        directory: folder to write; the images go to its sub-folder images.
        kind: ct (volumes in HU) or xray.
        count: number of images.
        seed: the same seed gives the same phantoms.
    """
    from .phantom import write_phantoms  # here, since the other commands need none of it

    write_phantoms(directory, kind=kind, count=count, seed=seed)
    yield f"{count} {kind} phantoms in {Path(directory) / 'images'}"


def main() -> None:
    """Run the command line; what the user can mend ends with one sentence and status 1."""
    try:
        fire.Fire({"datalist": datalist, "phantom": phantom}, name="dira_monai")
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
