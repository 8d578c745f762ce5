"""The commands ``python -m dira_monai datalist``, ``labeled``, ``prepare`` and ``phantom``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..bundle.values import type_word
from ..datalists.io import write_datalist
from ..datalists.labeled import make_labeled_datalist
from ..datalists.leakage import check_overlap
from ..datalists.options import LabelOptions
from ..datalists.splits import warn_of_absent_classes
from ..datalists.summary import MAX_ROWS, describe_datalist, describe_labeled, summarize_datalist
from ..datalists.unlabeled import make_datalist
from ..images.find import first_file
from ..images.measuring import keep_facts
from ..utils.errors import InputError
from .deferred import takes_options_of


@takes_options_of(LabelOptions)
def labeled(
    directory: str,
    *,
    output: str = "datalist.json",
    pretraining_list: str | None = None,
    allow_overlap: bool = False,
    strict: bool = False,
    workers: int | None = None,
    **options: Any,
) -> Iterator[str]:
    """Check every labeled image of a folder, split the patients, and write the datalist for fine-tuning.

    Args:
        directory: folder with images and labels (or masks), with images and labels.csv, or with one folder a class.
        output: JSON file to write.
        pretraining_list: datalist of the pre-training, which must not hold test images or patients.
        allow_overlap: say so, but go on where it does.
        strict: stop at the first image that cannot be used.
        workers: threads that read images.
        **options: see ``LabelOptions``.
    """
    with keep_facts(output):
        made = make_labeled_datalist(directory, LabelOptions(**options), strict=strict, workers=workers)
        lines = [describe_labeled(made), *warn_of_absent_classes(made)]
        lines += check_overlap(made, output, pretraining_list, allow_overlap) if pretraining_list else []
        write_datalist(made, output)
    yield from lines
    yield f"{output} is written"


@takes_options_of(make_datalist)
def datalist(directory: str, *, output: str = "datalist.json", **options: Any) -> Iterator[str]:
    """Check every image of a folder, split the patients into training and validation, and write the datalist.

    Args:
        directory: folder of PNG, JPEG, NIfTI, NRRD, MHD or DICOM files, searched with its sub-folders.
        output: JSON file to write.
        **options: see ``make_datalist``.
    """
    with keep_facts(output):
        made = make_datalist(directory, **options)
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


def prepare(
    datalist: str,
    output: str,
    *,
    config: str | None = None,
    overrides: dict | None = None,
    crop_body: bool = False,
    workers: int | None = None,
    verify: bool = False,
) -> Iterator[str]:
    """Store the images of a datalist as a pre-training bundle prepares them, for sets that do not fit into memory.

    The folder then is the bundle's dataset_dir. A run that was stopped goes on where it was.

    Args:
        datalist: JSON file of the command datalist.
        output: folder for images, prepared.json and datalist.json.
        config: folder of the bundle, or its train.json; by default the one of the package that suits the list.
        overrides: values of the configuration to replace, such as "{'spacing': [1, 1, 1], 'cache_dtype': 'int16'}".
        crop_body: cut away the air around the body.
        workers: threads that read images, each of which holds one.
        verify: prepare nothing; compare the stored files with their checksums.
    """
    # here, since it imports MONAI, which no --help needs
    from ..data.prepared import prepare as prepare_images
    from ..data.prepared import verify as verify_images

    if verify:
        broken = list(verify_images(output))
        yield from broken
        if broken:
            raise InputError(
                f"{len(broken)} files of {output} are not what was prepared; delete them and prepare again"
            )
        yield f"{output}: all files are what was prepared"
        return
    made = prepare_images(datalist, output, config=config, overrides=overrides, crop_body=crop_body, workers=workers)
    entries = [*made["training"], *made["validation"]]
    size = sum((Path(output) / entry["image"]).stat().st_size for entry in entries)
    mean = sum(entry["stored_mean"] for entry in entries) / len(entries)
    yield f"{output}: {len(entries)} images, {size / 1e9:.2f} GB, mean {mean:.3f} of [0, 1]"
    yield f"pre-train with --dataset_dir {type_word(output)}"


def phantom(directory: str, *, kind: str = "ct", count: int = 24, seed: int = 0) -> Iterator[str]:
    """Write built-in phantoms, which are drawn and no real scans, with their labels.

    Args:
        directory: folder to write; the images go to its sub-folder images.
        kind: ct (volumes in HU), xray, or primitives_2d or primitives_3d: random geometric shapes.
        count: number of images.
        seed: the same seed gives the same phantoms.
    """
    from ..phantoms.chest import write_phantoms  # here, since the other commands need none of it

    write_phantoms(directory, kind=kind, count=count, seed=seed)
    yield f"{count} {kind} phantoms in {Path(directory) / 'images'}"
