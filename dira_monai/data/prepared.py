"""Prepared images on the disk, one file each, of which training reads the bytes of a crop and nothing else."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bundle.config import read_config
from ..bundle.shipped import bundle_folders
from ..bundle.values import PREPARED_VALUES
from ..datalists.checks import LISTS
from ..datalists.io import load_datalist, write_datalist
from ..images.find import Image, files_of, first_file
from ..utils.errors import InputError
from ..utils.files import atomic_write, sha256
from ..utils.locking import lock_folder, release_folders
from ..utils.parallel import parallel_map
from .datasets import read_stored
from .image_setup import ImageSetup
from .preprocessing import FOREGROUND_LEVEL, stored_unit

KIND = "prepared images of dira_monai"
AGAIN = "prepare it again, into another folder"


def prepare(
    datalist: str | Path,
    output: str | Path,
    *,
    config: str | Path | Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    crop_body: bool = False,
    workers: int | None = None,
) -> dict:
    """Store the training and validation images of a list as a bundle prepares them: the list of the stored images.

    Each image becomes ``images/NAME.npy`` in ``output``: (C, *spatial), of the configuration's ``cache_dtype``, whole
    or not there at all. ``datalist.json``, written last, has what ``measure_stored`` finds beside what the list says. A
    killed run goes on where it stopped; images of files that were changed since are made again.

    Args:
        datalist: JSON file.
        output: folder, a new one or that of an earlier run with the same settings.
        config: see ``read_config``; None: the pre-training bundle that suits the list, in the folder ``bundles`` or,
            where there is none, in the package.
        overrides: values of the configuration to replace, by their ids.
        crop_body: cut away what lies outside the smallest box around all voxels above air, but no more than leaves the
            configuration's ``region_size``.
        workers: threads, each of which holds one image; None: one a processor, at most 4.

    Raises:
        InputError: if the list, the configuration or an image cannot be used, or the folder holds images of other
            settings, or another process prepares images into it.
    """
    content, folder = load_datalist(datalist), Path(output)
    name = f"dira_pretrain_{content.get('spatial_dims', 3)}d"
    own = Path("bundles", name)
    bundle = read_config(
        config or (own if own.is_dir() else bundle_folders()[name]), overrides, purpose="prepared images"
    )
    setup = ImageSetup(bundle)
    region = [int(n) for n in bundle.build("region_size")]
    setup.check_datalist(content, datalist)
    settings = json.loads(json.dumps({key: getattr(setup.images, key) for key in PREPARED_VALUES}))
    settings |= {"dtype": setup.dtype, "crop_body": crop_body, "region_size": region}

    def work(entry: dict) -> dict:
        path = folder / "images" / file_name(entry["image"])
        if not path.exists():
            image = setup.load(entry["image"])
            if crop_body:
                image = image[(slice(None), *body_box(image, region))]
            with atomic_write(path) as file:
                np.save(file, image.contiguous().numpy())
        facts = measure_stored(path)
        if settings["spacing"]:
            facts["spacing"] = settings["spacing"]
        return {**entry, **facts, "image": f"images/{path.name}", "source": entry["image"]}

    try:
        lock_folder(folder)
        _claim(folder, settings)
        lock_folder(folder / "images")
        lists = {key: list(parallel_map(work, content[key], f"preparing {key}", workers)) for key in LISTS[:2]}
    finally:
        release_folders()
    kept = {key: value for key, value in content.items() if key not in (*LISTS, "dataset_dir", "skipped")}
    made = kept | {"kind": KIND, "prepared": settings} | lists
    write_datalist(made, folder / "datalist.json")
    return made


def _claim(folder: Path, settings: dict) -> None:
    """Write the settings into the folder, before anything else, or find the same ones there."""
    path = folder / "prepared.json"
    if not path.exists():
        if (folder / "images").exists():
            raise InputError(f"{folder} holds images of something else; name another folder.")
        with atomic_write(path) as file:
            file.write((json.dumps(settings, indent=1) + "\n").encode())
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, value in settings.items():
        if found.get(key) != value:
            raise InputError(
                f"{folder} was prepared with {key} {found.get(key)}, now it is {value}; name another folder."
            )


def file_name(image: Image) -> str:
    """Name of the stored file: that of the source, and a digest of its path, size and time of change."""
    known = [(file, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files_of(image)]
    digest = hashlib.sha256(repr(known).encode()).hexdigest()[:16]
    return f"{Path(first_file(image)).name.split('.')[0]}_{digest}.npy"


def body_box(image: Tensor, least: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box around all voxels above air, as slices of the spatial axes.

    Args:
        image: stored, (C, *spatial).
        least: sides that the box has at least, where the image has them; it grows to both sides alike.
    """
    body = image[0] > FOREGROUND_LEVEL * stored_unit(image)
    box = []
    for axis, (n, side) in enumerate(zip(body.shape, least, strict=True)):
        others = [other for other in range(body.ndim) if other != axis]
        rows = body.any(dim=others).nonzero() if others else body.nonzero()
        first, last = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, n)
        missing = max(0, min(side, n) - (last - first))
        first = min(max(0, first - missing // 2), n - min(side, n))
        box.append(slice(first, max(last, first + min(side, n))))
    return tuple(box)


def measure_stored(path: str | Path) -> dict[str, Any]:
    """``shape`` of the spatial axes, ``stored_mean`` and ``stored_deviation`` (of [0, 1]) and ``sha256`` of the file.

    Raises:
        InputError: if it is none.
    """
    image = read_stored(path)
    unit = stored_unit(image)
    deviation, mean = torch.std_mean(image.double(), correction=0)
    moments = {"stored_mean": float(mean) / unit, "stored_deviation": float(deviation) / unit}
    return {"shape": list(image.shape[1:]), "sha256": sha256(path)} | {k: float(f"{v:.6g}") for k, v in moments.items()}


def verify(folder: str | Path) -> Iterator[str]:
    """Names of the stored images that are missing or not what they were when they were prepared.

    Args:
        folder: of the command prepare.

    Raises:
        InputError: if it has no complete list.
    """
    content = load_datalist(Path(folder) / "datalist.json")
    for entry in (entry for key in LISTS[:2] for entry in content[key]):
        if sha256(entry["image"]) != entry.get("sha256"):
            yield entry["image"]


def check_prepared(datalist: Mapping[str, Any], region_size: Sequence[int], **wanted: Any) -> None:
    """Refuse stored images that the run would have prepared in another way; other lists pass.

    Args:
        datalist: a loaded one.
        region_size: of the crop that views are taken from, voxels.
        wanted: values of the run, by names of ``PREPARED_VALUES``.

    Raises:
        InputError: if a value differs, or an image is smaller than the region.
    """
    found = datalist.get("prepared")
    if found is None:
        return
    for key, value in json.loads(json.dumps(wanted)).items():
        if found.get(key) != value:
            raise InputError(
                f"{datalist['dataset_dir']} was prepared with {key} {found.get(key)}, the run has {value}; {AGAIN}."
            )
    for entry in (entry for key in LISTS[:2] for entry in datalist[key]):
        if any(have < want for have, want in zip(entry["shape"], region_size, strict=True)):
            raise InputError(
                f"{entry['image']} has {entry['shape']} voxels, less than region_size {list(region_size)}; {AGAIN}."
            )
