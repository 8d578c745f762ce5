"""What a run was trained on: its list, found beside its weights, and compared with what is tested."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..datalists.checks import first_names
from ..datalists.io import load_datalist, read_own
from ..datalists.leakage import Training, find_leaks, find_seen, read_training
from ..datalists.prepare import prepare_data
from ..dicom.headers import is_dicom
from ..images.facts import find_outline, measure_image
from ..images.find import Image, first_file, map_files
from ..images.measuring import measure_each
from ..utils.distributed import on_first_process
from ..utils.errors import InputError
from ..utils.files import user_path

NAME = "datalist.json"


def find_run_list(weights: str | Path, *folders: str | Path) -> Path | None:
    """The list that weights were trained with: in one of the folders, or where a run leaves it; None: not found.

    A run leaves it above its folder ``models``, or in ``output`` there; its finished ``bundle`` lies beside it.
    """
    root = Path(weights).absolute().parents[1]
    places = [*folders, root / "output", root, *([root.parent] if root.name == "bundle" else [])]
    return next((path for place in places if (path := Path(place, NAME)).is_file()), None)


def tell_seen(images: Sequence[Image | Mapping[str, Any]], run_list: str | Path | None) -> str:
    """Print, and return, a line on how many images a run has trained on, or on others of their patients; "" where none.

    Patients are compared as ``find_overlap`` does: by name where the folders of both are related, and by PatientID.
    Copies under another name or in another format are found by their pixels: of entries with a ``digest`` by this, and
    others are read where an image of the training has axes as long as theirs.

    Args:
        images: that are tested, with absolute paths, or entries of a datalist; a folder is that of a DICOM series.
        run_list: datalist of the training; None: nothing is compared.
    """
    if run_list is None or not images:
        return ""
    entries = [image if isinstance(image, Mapping) else {"image": image} for image in images]
    paths = [_as_series(entry["image"]) for entry in entries]
    root = os.path.commonpath([os.path.dirname(first_file(path)) for path in paths])
    relative = [map_files(path, lambda file: os.path.relpath(file, root)) for path in paths]
    try:
        training = read_training(run_list)
        seen = {*_find_trained(relative, root, training)}
        others = [e for e, image in zip(entries, relative, strict=True) if first_file(image) not in seen]
        copied = _find_copies(others, training)
        names = [
            first_file(image)
            for entry, image in zip(entries, relative, strict=True)
            if first_file(image) in seen or first_file(entry["image"]) in copied
        ]
        line = f"are, or are of patients, in training of {run_list}: {first_names(names)}"
        line = f"warning: {len(names)} of {len(images)} images {line}" if names else ""
    except InputError as error:
        line = f"warning: whether the images were trained on is not known: {error}"
    if line:
        print(line)
    return line


def _find_trained(images: Sequence[Image], root: str, training: Training) -> list[str]:
    """The images, relative to ``root``, that were trained on, or whose patients were where these can be compared."""
    homes = os.path.realpath(root), os.path.realpath(training.root)
    comparable = os.path.commonpath(homes) in homes or training.content.get("patient_rule") == "dicom"
    try:
        leaks = find_leaks(images, root, training.datalist)[0] if comparable else []
        seen = [leak["image"] for leak in leaks if leak["list"] == "training"]
    except InputError:  # the rule of the list gives these images no patients
        comparable = False
    if not comparable:
        found = find_seen(images, root, [""] * len(images), training)
        seen = [first_file(images[number]) for number, (name, _) in found.items() if name == "training"]
    return seen


def _find_copies(entries: Sequence[Mapping[str, Any]], training: Training) -> set[str]:
    """The first files of the entries, or their folders, whose pixels are those of an image of the training list."""
    known = {e["digest"]: sorted(n for n in e["shape"] if n > 1) for e in training.content["training"] if "digest" in e}
    outlines = [*known.values()]
    digests = {first_file(e["image"]): e["digest"] for e in entries if "digest" in e}

    def measure(entry: Mapping[str, Any], directory: str | Path) -> dict:
        alike = False
        with suppress(Exception):  # whatever decoders raise: what reads the image later tells why
            alike = find_outline(entry["image"], directory) in outlines
        return measure_image(entry["image"], directory) if alike else {}

    others = [entry for entry in entries if "digest" not in entry] if known else []
    for entry, fact in zip(others, measure_each(measure, others, os.sep), strict=True):
        if isinstance(fact, dict) and fact:
            digests[first_file(entry["image"])] = fact["digest"]
    return {file for file, digest in digests.items() if digest in known}


def _as_series(image: Image) -> Image:
    """The first file of a folder that holds a DICOM series, which stands for it in a list."""
    if isinstance(image, str) and os.path.isdir(image):
        files = (entry.path for entry in sorted(os.scandir(image), key=lambda entry: entry.name))
        first = next((file for file in files if os.path.isfile(file) and is_dicom(Path(file))), image)
        return first if first == image else [first]
    return image


def evaluation_list(dataset_dir: str | None, run_list: str, output_dir: str, **options: Any) -> dict:
    """The list that a pre-training is evaluated on, with absolute paths; prints a line on what its training has seen.

    It is the run's own where ``dataset_dir`` is empty or the folder or list of that; other data go through
    ``prepare_data`` with ``options``, in ``output_dir``.

    Raises:
        InputError: as ``load_datalist`` and ``prepare_data`` do, in every process.
    """
    kept, source = Path(run_list), user_path(dataset_dir or run_list)
    own = kept.is_file() and source.absolute() in (kept.absolute(), Path(read_own(kept).get("dataset_dir", "")))
    if own or not dataset_dir:
        return on_first_process(lambda: load_datalist(kept))
    datalist = prepare_data(dataset_dir, output_dir, **options)
    tell_seen(datalist["validation"], run_list)
    return datalist
