"""Datalists as files: written, loaded, and made on first use."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..images.find import find_files
from ..utils.distributed import on_first_process
from ..utils.errors import InputError
from .io import load_datalist, write_datalist
from .options import VALIDATION_FRACTION
from .summary import span, summarize_datalist
from .unlabeled import make_datalist

PHANTOMS = {2: ("xray", 64), 3: ("ct", 24)}  # kind and count of the built-in data set, by spatial_dims


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

    Without ``dataset_dir`` the built-in phantoms of the seed are written to a folder in ``output_dir/phantom``. A JSON
    file, or a ``datalist.json`` in the folder, is used as it is. Anything else goes through ``make_datalist`` into
    ``output_dir/datalist.json``, which is used again while arguments and files stay the same. Among several
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
    return on_first_process(lambda: _prepare(dataset_dir, Path(output_dir), made_for, patch_size))


def _prepare(dataset_dir: str | None, output: Path, made_for: dict, patch_size: Sequence[int] | int | None) -> dict:
    source = Path(dataset_dir).expanduser() if dataset_dir else make_phantoms(output, made_for)
    given = source if source.suffix == ".json" else source / "datalist.json"
    path = given if given.is_file() else output / "datalist.json"
    if path != given:
        wanted = {
            "dataset_dir": os.path.abspath(source),
            **made_for,
            "fingerprint": fingerprint([Path(os.path.abspath(source))]),
        }
        if not is_current(path, wanted):
            write_datalist(make_datalist(source, **made_for) | {"fingerprint": wanted["fingerprint"]}, path)
    datalist = load_datalist(path)
    for key in ("spatial_dims", "in_channels"):
        if datalist.get(key, made_for[key]) != made_for[key]:
            raise InputError(f"{path} was made for {key} {datalist[key]} where the network has {made_for[key]}.")
    _announce(datalist, path, patch_size)
    return datalist


def phantom_folder(output: Path, made_for: dict) -> Path:
    """The folder of the built-in data set of this kind and seed.

    Args:
        output: folder of the run.
        made_for: with ``spatial_dims`` and ``seed``.
    """
    return output / "phantom" / f"{PHANTOMS[made_for['spatial_dims']][0]}_seed_{made_for['seed']}"


def make_phantoms(output: Path, made_for: dict) -> Path:
    """The folder of the images of the built-in data set in ``phantom_folder``, written where it is not yet there.

    Args:
        output: folder of the run.
        made_for: with ``spatial_dims`` and ``seed``; each pair has a data set of its own.
    """
    directory = phantom_folder(output, made_for)
    images = directory / "images"
    if not images.is_dir():
        from ..phantoms.chest import write_phantoms  # here, since real data needs none of it

        kind, count = PHANTOMS[made_for["spatial_dims"]]
        print(f"No dataset_dir is given: making {count} synthetic {kind} phantoms in {images}, no real scans.")
        half_made = directory.with_name(f".{directory.name}")  # a killed run's are completed
        write_phantoms(half_made, kind=kind, count=count, seed=made_for["seed"])
        os.replace(half_made, directory)
    return images


def is_current(path: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the datalist was made for these values, ``fingerprint`` among them."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return all(kept[key] == value for key, value in wanted.items())
    except (OSError, ValueError, TypeError, KeyError):
        return False


def fingerprint(folders: Sequence[Path], tables: Sequence[Path] = ()) -> str:
    """Changes with the name, size or date of any image in the folders and of any of the tables.

    Raises:
        InputError: if a folder does not exist.
    """
    files = [folder / name for folder in folders for names in find_files(folder) for name in names]
    there = [(file, file.stat()) for file in [*files, *tables] if file.exists()]  # a link may lead nowhere
    facts = [(str(file), state.st_size, state.st_mtime_ns) for file, state in there]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


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
        print(f"{small} of {len(shapes)} images are smaller than the region of {span([size])}: padded, unless resized")
