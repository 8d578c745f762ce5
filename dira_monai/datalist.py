"""Datalists as files: written, loaded, made on first use, and shown as a table."""

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch.distributed as dist

from .errors import InputError
from .files import replacing
from .listing import VALIDATION_FRACTION, check_datalist, make_datalist
from .scans import Image, check_image, find_files, find_images, first_file

__all__ = [
    "check_datalist",
    "check_image",
    "describe_datalist",
    "find_images",
    "load_datalist",
    "make_datalist",
    "prepare_data",
    "summarize_datalist",
    "write_datalist",
]

MAX_ROWS = 20  # of the table, and of what the commands list
PHANTOMS = {2: ("xray", 64), 3: ("ct", 24)}  # kind and count of the built-in data set, by spatial_dims


def write_datalist(datalist: dict, path: str | Path) -> None:
    """Write the datalist as JSON, complete or not at all; missing folders are made."""
    with replacing(path) as file:
        file.write((json.dumps(datalist, indent=1) + "\n").encode())


def load_datalist(path: str | Path, dataset_dir: str | Path | None = None) -> dict:
    """A datalist from JSON, checked, its ``image`` paths absolute; every other entry stays.

    Lists without ``patient``, as MONAI's tutorials have them, are taken as they are.

    Args:
        path: JSON file.
        dataset_dir: where its paths start; by default the folder that it names, or else the folder it lies in.

    Raises:
        InputError: if the file is missing, no JSON or fails ``check_datalist``, or if an image is missing.
    """
    try:
        datalist = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the datalist {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"the datalist {path} is not valid JSON: {error}.") from error
    check_datalist(datalist, path)
    home = Path(os.path.abspath(path)).parent
    named = home / datalist.get("dataset_dir", ".")
    root = Path(os.path.abspath(dataset_dir)) if dataset_dir else named if named.is_dir() else home
    datalist["dataset_dir"] = str(root)
    for entry in [*datalist["training"], *datalist["validation"]]:
        image = entry["image"]
        entry["image"] = str(root / image) if isinstance(image, str) else [str(root / file) for file in image]
        for file in [image] if isinstance(image, str) else image:
            if not (root / file).is_file():
                raise InputError(f"{root / file}, an image of {path}, does not exist.")
    return datalist


def prepare_data(
    dataset_dir: str | None,
    output_dir: str,
    spatial_dims: int,
    in_channels: int,
    seed: int,
    validation_fraction: float = VALIDATION_FRACTION,
    patch_size: Sequence[int] | int | None = None,
) -> dict:
    """The datalist that a bundle trains on, with absolute paths; made on first use, then read from ``output_dir``.

    Without ``dataset_dir`` the built-in phantoms are written to ``output_dir/phantom``. A JSON file, or a
    ``datalist.json`` in the folder, is used as it is. Anything else goes through ``make_datalist`` into
    ``output_dir/datalist.json``, which is used again while arguments and file names stay the same. Among several
    processes the first one works and the others wait.

    Args:
        dataset_dir: folder of scans, a datalist, or None or "" for phantoms.
        output_dir: folder of the run.
        spatial_dims: 2 or 3.
        in_channels: channels of the network.
        seed: of the split and the phantoms.
        validation_fraction: part of the patients kept for validation.
        patch_size: voxels, only to say how many images are smaller and so will be padded.

    Raises:
        InputError: as ``make_datalist`` and ``load_datalist`` do, in every process.
    """
    made_for = {
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "seed": seed,
        "validation_fraction": validation_fraction,
    }
    if not (dist.is_available() and dist.is_initialized()):
        return _prepare(dataset_dir, Path(output_dir), made_for, patch_size)
    answer: list = [None]
    if dist.get_rank() == 0:
        try:
            answer[0] = _prepare(dataset_dir, Path(output_dir), made_for, patch_size)
        except Exception as error:  # the others must not wait for ever
            answer[0] = InputError(str(error))
    dist.broadcast_object_list(answer)
    if isinstance(answer[0], InputError):
        raise answer[0]
    return answer[0]


def _prepare(dataset_dir: str | None, output: Path, made_for: dict, patch_size: Sequence[int] | int | None) -> dict:
    source = Path(dataset_dir).expanduser() if dataset_dir else _make_phantoms(output / "phantom", made_for)
    given = source if source.suffix == ".json" else source / "datalist.json"
    path = given if given.is_file() else output / "datalist.json"
    if path != given and not _is_current(path, source, made_for):
        write_datalist(make_datalist(source, **made_for), path)
    datalist = load_datalist(path)
    for key in ("spatial_dims", "in_channels"):
        if datalist.get(key, made_for[key]) != made_for[key]:
            raise InputError(f"{path} was made for {key} {datalist[key]} where the network has {made_for[key]}.")
    _announce(datalist, path, patch_size)
    return datalist


def _make_phantoms(directory: Path, made_for: dict) -> Path:
    images = directory / "images"
    if not images.is_dir():
        from .phantom import write_phantoms  # here, since real data needs none of it

        kind, count = PHANTOMS[made_for["spatial_dims"]]
        print(f"No dataset_dir is given: making {count} synthetic {kind} phantoms in {images}, no real scans.")
        half_made = directory.with_name(f".{kind}_phantoms_{made_for['seed']}")  # a killed run's are completed
        write_phantoms(half_made, kind=kind, count=count, seed=made_for["seed"])
        os.replace(half_made, directory)
    return images


def _is_current(path: Path, source: Path, made_for: dict) -> bool:
    """Whether the datalist was made for these arguments from the files that are there now."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        listed = [entry["image"] for key in ("training", "validation", "skipped") for entry in kept[key]]
    except (OSError, ValueError, TypeError, KeyError):
        return False
    asked = {"dataset_dir": os.path.abspath(source), **made_for}
    if any(kept.get(key) != value for key, value in asked.items()):
        return False
    files = [file for image in listed for file in ([image] if isinstance(image, str) else image)]
    images, dicom = find_files(source)
    found = sorted([*images, *dicom])
    made = path.stat().st_mtime  # a file that was mended since then is read again
    return sorted(files) == found and all((source / file).stat().st_mtime <= made for file in found)


def _announce(datalist: dict, path: Path, patch_size: Sequence[int] | int | None) -> None:
    skipped = datalist.get("skipped", [])
    print(summarize_datalist(datalist) + (f" (the first: {skipped[0]['reason']} See {path})" if skipped else ""))
    shapes = [entry["shape"] for key in ("training", "validation") for entry in datalist[key] if "shape" in entry]
    if patch_size is None or not shapes:
        return
    size = [patch_size] * len(shapes[0]) if isinstance(patch_size, int) else list(patch_size)
    if len(size) != len(shapes[0]):
        raise InputError(f"patch_size {size} has {len(size)} axes where the images of {path} have {len(shapes[0])}.")
    small = sum(any(have < want for have, want in zip(shape, size, strict=True)) for shape in shapes)
    if small:
        print(f"{small} of {len(shapes)} images are smaller than the region of {_span([size])}: padded, unless resized")


def summarize_datalist(datalist: dict) -> str:
    """One line: how many images for training and validation, of how many patients, how many skipped and left out."""
    training, validation = datalist["training"], datalist["validation"]
    patients = {str(entry.get("patient", entry["image"])) for entry in [*training, *validation]}
    rule = f" (by {datalist['patient_rule']})" if "patient_rule" in datalist else ""
    counts = [
        f"{len(training)} training and {len(validation)} validation images of {len(patients)} patients{rule}",
        f"{len(datalist.get('skipped', []))} skipped",
        *(f"{count} of split {split} left out" for split, count in datalist.get("left_out", {}).items()),
    ]
    return ", ".join(counts)


def describe_datalist(datalist: dict) -> str:
    """A text table: one row a format and folder of images, or one row an image where there are at most 20 of them."""
    entries = [(entry, key) for key in ("training", "validation") for entry in datalist[key]]
    if len(entries) <= MAX_ROWS:
        head = ["image", "split", "patient", "shape", "spacing mm", "intensity"]
        rows = [[_label(entry["image"]), key, entry["patient"], *_spans([entry])] for entry, key in entries]
    else:
        head = ["format", "folder", "images", "shape", "spacing mm", "intensity"]
        folders = {_folder(entry["image"]) for entry, _ in entries}
        groups: dict[tuple[str, str], list[dict]] = {}
        for entry, _ in entries:
            folder = _folder(entry["image"]) if len(folders) <= MAX_ROWS else f"{len(folders)} folders"
            groups.setdefault((_format(entry["image"]), folder), []).append(entry)
        rows = [[*group, str(len(groups[group])), *_spans(groups[group])] for group in sorted(groups)]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in [head, *rows])


def _label(image: Image) -> str:
    return image if isinstance(image, str) else image[0] + (f" ({len(image)} files)" if len(image) > 1 else "")


def _folder(image: Image) -> str:
    return str(PurePosixPath(first_file(image)).parent)


def _format(image: Image) -> str:
    suffix = "DICOM" if not isinstance(image, str) else PurePosixPath(image.removesuffix(".gz")).suffix[1:].upper()
    return {"NII": "NIfTI", "JPG": "JPEG"}.get(suffix, suffix)


def _spans(entries: Sequence[dict]) -> list[str]:
    """Shape, spacing and intensity of some images, each number as ``low-high`` where they differ."""
    shapes = [entry["shape"] for entry in entries]
    spacings = [entry["spacing"] for entry in entries if entry["spacing"]]
    ranges = [entry["range"] for entry in entries]
    intensity = f"{min(low for low, _ in ranges):g} to {max(high for _, high in ranges):g}"
    return [_span(shapes), _span(spacings) if spacings else "-", intensity]


def _span(rows: Sequence[Sequence[float]]) -> str:
    axes = [(f"{min(axis):.4g}", f"{max(axis):.4g}") for axis in zip(*rows, strict=True)]
    return " x ".join(low if low == high else f"{low}-{high}" for low, high in axes)
