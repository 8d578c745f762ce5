"""Whether data are 2D or 3D, told from a few of them."""

from collections.abc import Sequence
from pathlib import Path, PurePath

from ..datalists.checks import LISTS, check_datalist, find_root
from ..datalists.io import read_datalist
from ..datalists.rows import Found
from ..dicom.headers import group_series
from ..images.facts import FORMATS
from ..images.find import PIL_SUFFIXES, Image, find_files, first_file, read_image
from ..utils.errors import InputError
from ..utils.files import user_path

CURE = "give --dims 2 or --dims 3"


def choose_dims(data: str | Path) -> int:
    """2 or 3: what a datalist says, else what its images are, or those of a folder.

    Pictures (PNG, JPEG) are 2D. Of other files the first, the middle and the last are read; whoever trains on them
    reads all, and leaves out those of another kind.

    Args:
        data: folder, or datalist.

    Raises:
        InputError: if there is no image, they are of both kinds, or none of them can be read.
    """
    source = user_path(data)
    listed = source if source.suffix.lower() == ".json" else source / "datalist.json"
    dims = _dims_of_list(listed) if listed.is_file() or source.suffix else _dims_of_folder(source)
    if len(dims) > 1:
        raise InputError(f"{data} has 2D images ({dims[2]}) and 3D images ({dims[3]}); {CURE}")
    return next(iter(dims))


def _dims_of_list(path: Path) -> dict[int, str]:
    """The kinds of images in a datalist, each with one of it."""
    content = read_datalist(path)
    if isinstance(content, dict) and content.get("spatial_dims") in (2, 3):
        return {content["spatial_dims"]: str(path)}
    check_datalist(content, path)
    entries = [entry for name in LISTS for entry in content.get(name, [])]
    known = {len(entry["shape"]): first_file(entry["image"]) for entry in entries if "shape" in entry}
    return known or _measure([entry["image"] for entry in entries], find_root(content, path))


def _dims_of_folder(root: Path) -> dict[int, str]:
    """The kinds of images in a folder, each with one of it; label maps do not count."""
    files, dicom = find_files(root)
    images = Found(root, []).without_label_maps([*files, *dicom])
    if not images:
        raise InputError(f"{root} holds no {FORMATS} file")
    own = {first_file(image) for image in images}
    folders = {PurePath(name).parent for name in _sample([name for name in dicom if name in own])}
    slices = [root / name for name in dicom if PurePath(name).parent in folders]
    series = [[file.relative_to(root).as_posix() for file in group] for group in group_series(slices)]
    return _measure([*(name for name in files if name in own), *_sample(series)], root)


def _measure(images: Sequence[Image], root: Path) -> dict[int, str]:
    """The kinds of some images, each with one of it; pictures are not opened."""
    kinds: dict[bool, list[Image]] = {True: [], False: []}
    for image in images:
        kinds[first_file(image).lower().endswith(PIL_SUFFIXES)].append(image)
    found = {2: first_file(kinds[True][0])} if kinds[True] else {}
    reasons = []
    for image in _sample(kinds[False]):
        try:
            found.setdefault(len(read_image(image, root)[1]["spatial_shape"]), first_file(image))
        except InputError as error:
            reasons.append(str(error).rstrip("."))
    if not found:
        raise InputError(f"{root}: no image tells whether it is 2D or 3D ({reasons[0]}); {CURE}")
    return found


def _sample(items: Sequence) -> list:
    """The first, the middle and the last."""
    return [items[place] for place in sorted({0, len(items) // 2, len(items) - 1})] if items else []
