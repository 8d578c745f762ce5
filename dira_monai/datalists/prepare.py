"""The datalist that a bundle trains on: found, or made on first use."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..bundle.values import NETWORK_VALUES
from ..images.facts import loaded_shape
from ..images.find import files_of, find_files, first_file
from ..images.measuring import keep_facts
from ..utils.distributed import on_first_process
from ..utils.errors import InputError
from ..utils.files import user_path
from .checks import LISTS, entries_of
from .io import keep_places, load_datalist, read_own, take_list, write_datalist
from .layouts import split_names
from .options import VALIDATION_FRACTION
from .rows import Found
from .summary import span, summarize_datalist
from .tables import TABLES
from .unlabeled import make_datalist

LATER = {
    "patient": "auto",
    "modalities": None,
    "include_test": False,
}  # options that lists of older versions were made without
DRAWN_BY = ("dataset_dir", "seed", "patient", "test_fraction", "validation_fraction", "exclude_patients_of")
PHANTOMS = {2: ("xray", 64), 3: ("ct", 24)}  # kind and count of the built-in data set, by spatial_dims


def prepare_data(
    dataset_dir: str | None,
    output_dir: str,
    spatial_dims: int,
    in_channels: int,
    seed: int,
    validation_fraction: float = VALIDATION_FRACTION,
    patient: str = "auto",
    modalities: str | Sequence[str] | None = None,
    patch_size: Sequence[int] | int | None = None,
    patient_column: str | None = None,
    file_column: str | None = None,
    resume: bool = False,
    **image_values: Any,
) -> dict:
    """The datalist that a bundle trains on, with absolute paths; made on first use, then read from ``output_dir``.

    Without ``dataset_dir`` the built-in phantoms of the seed are written to a folder in ``output_dir/phantom``. A JSON
    file, or a ``datalist.json`` in the folder, is used as it is; anything else goes through ``make_datalist``, whose
    result is used again while arguments and files stay the same. ``output_dir/datalist.json`` holds the list in the
    end, in any case. Among several processes the first one works and the others wait.

    Args:
        dataset_dir: folder of scans, a datalist, or None or "" for phantoms.
        output_dir: folder of the run.
        spatial_dims: 2 or 3.
        in_channels: channels of the network.
        seed: of the split and the phantoms.
        validation_fraction: part of the patients kept for validation.
        patient: what tells them apart, as ``make_datalist`` takes it.
        modalities: of which an image has one file each, as ``make_datalist`` takes them.
        patch_size: voxels, only to say how many images are smaller and so will be padded.
        patient_column: of a table of patients.
        file_column: of the same table.
        resume: as ``make_list`` takes it.
        image_values: ``axcodes``, ``spacing`` and ``image_size`` by which images change their shape before.

    Raises:
        InputError: as ``make_datalist``, ``load_datalist``, ``make_list`` and ``take_list`` do, in every process.
    """
    options = {
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "seed": seed,
        "validation_fraction": validation_fraction,
        "patient": patient,
        "patient_column": patient_column,
        "file_column": file_column,
        "modalities": split_names(modalities) or None,
    }

    def work() -> dict:
        if dataset_dir:
            source = user_path(dataset_dir)
        else:
            source = make_phantoms(Path(output_dir), spatial_dims, seed) / "images"
        built_in = {} if dataset_dir else {"include_test": True}  # nobody is tested
        datalist, path = list_images(source, Path(output_dir), options | built_in, resume)
        _announce(datalist, path, patch_size, image_values)
        return datalist

    return on_first_process(work)


def list_images(source: Path, output: Path, options: Mapping[str, Any], resume: bool = False) -> tuple[dict, Path]:
    """The datalist of a source, with absolute paths, and its file; ``output/datalist.json`` holds it in any case.

    Args:
        source: a datalist, a folder that holds one, or a folder of scans.
        output: folder of the run.
        options: ``spatial_dims``, ``in_channels`` and whatever else ``make_datalist`` takes.
        resume: as ``make_list`` takes it.

    Raises:
        InputError: as ``make_datalist`` and ``load_datalist`` do, or if the list was made for another network.
    """
    given, path = find_given(source), output / "datalist.json"
    if given is None:
        patient = str(options.get("patient"))
        tables = [Path(patient)] if patient.lower().endswith(TABLES) else []
        make_list(path, source, options, [source], tables, lambda: make_datalist(source, **options), resume)
    datalist = load_datalist(given or path)
    for key in NETWORK_VALUES:
        if datalist.get(key, options[key]) != options[key]:
            raise InputError(
                f"{given or path} was made for {key} {datalist[key]} where the network has {options[key]}."
            )
    if given:
        take_list(datalist, given, path, resume)
    return datalist, given or path


def make_phantoms(output: Path, spatial_dims: int, seed: int, tell: bool = False) -> Path:
    """The folder of the built-in data set of a kind and seed, written where it is not yet there.

    Args:
        output: folder of the run.
        spatial_dims: 2 for X-rays, 3 for CT.
        seed: of the phantoms.
        tell: say also that those that are there are used.
    """
    kind, count = PHANTOMS[spatial_dims]
    directory = output / "phantom" / f"{kind}_seed_{seed}"
    if not (directory / "images").is_dir():
        from ..phantoms.chest import write_phantoms  # here, since real data needs none of it

        print(f"No dataset_dir is given: making {count} synthetic {kind} phantoms in {directory}, no real scans.")
        half_made = directory.with_name(f".{directory.name}")  # a killed run's are completed
        write_phantoms(half_made, kind=kind, count=count, seed=seed)
        os.replace(half_made, directory)
    elif tell:
        print(f"No dataset_dir is given: using the synthetic phantoms in {directory}, no real scans.")
    return directory


def find_given(source: Path) -> Path | None:
    """The datalist that the user gives: a JSON file, or the ``datalist.json`` of a folder; else None."""
    given = source if source.suffix == ".json" else source / "datalist.json"
    return given if given.is_file() else None


def make_list(
    path: Path,
    source: Path,
    options: Mapping[str, Any],
    folders: Sequence[Path],
    tables: Sequence[Path],
    make: Callable[[], dict],
    resume: bool = False,
) -> None:
    """Write what ``make`` gives to ``path``, unless it was made there for the same options, folders and tables.

    With ``resume`` that of the same options stays as it is, and a line says how many images have come in since. Else,
    where a list is there for the same ``DRAWN_BY`` or ``resume`` is set, its patients keep their places in what is
    drawn, and a line says how many are new, or why patients are drawn anew.

    Raises:
        InputError: as ``keep_places`` does.
    """
    wanted = {"dataset_dir": os.path.abspath(source), **options, "fingerprint": _fingerprint(folders, tables)}
    kept = read_own(path)
    other = [key for key, value in wanted.items() if (LATER | kept).get(key) != value]
    if kept and resume and other == ["fingerprint"]:
        print(
            f"{path}: files of {source} have changed since this run began; it goes on with its list as it is, "
            f"without {_count_new(kept, folders)} images that have come in"
        )
    elif other:
        with keep_facts(path):
            made = make() | {"fingerprint": wanted["fingerprint"]}
            if kept and not resume and (anew := [key for key in DRAWN_BY if key in other]):
                print(f"{path}: its patients are drawn anew, for another {' and '.join(anew)}")
            elif kept:
                made, line = keep_places(made, kept, path, resume)
                print(line)
            write_datalist(made, path)


def _count_new(kept: dict, folders: Sequence[Path]) -> int:
    """How many images of the folders are in no list and were not skipped; label maps in folders of their own do not."""
    known = [*(entry["image"] for entry in entries_of({key: kept.get(key, []) for key in LISTS}))]
    known += [entry["image"] for entry in kept.get("skipped", [])]
    listed = {os.path.join(kept["dataset_dir"], file) for image in known for file in files_of(image)}
    found = Found(folders[0], []).without_label_maps([*chain(*find_files(folders[0]))])
    paths = [os.path.join(os.path.abspath(folders[0]), first_file(name)) for name in found]
    return sum(path not in listed and os.path.dirname(path) not in listed for path in paths)


def _fingerprint(folders: Sequence[Path], tables: Sequence[Path]) -> str:
    """Changes with the name, size or date of any image in the folders and of any of the tables."""
    places = [os.path.abspath(folder) for folder in folders]
    files = [Path(folder, name) for folder in places for name in chain(*find_files(folder))]
    there = [(file, file.stat()) for file in [*files, *tables] if file.exists()]  # a link may lead nowhere
    facts = [(str(file), state.st_size, state.st_mtime_ns) for file, state in there]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _announce(
    datalist: dict, path: Path, patch_size: Sequence[int] | int | None, image_values: Mapping[str, Any]
) -> None:
    skipped = datalist.get("skipped", [])
    print(summarize_datalist(datalist) + (f" (the first: {skipped[0]['reason']} See {path})" if skipped else ""))
    stored = "prepared" in datalist  # with the shape that they have now
    measured = [entry for entry in entries_of(datalist, LISTS[:2]) if "shape" in entry]
    shapes = [entry["shape"] if stored else loaded_shape(entry, **image_values) for entry in measured]
    if patch_size is None or not shapes:
        return
    size = [patch_size] * len(shapes[0]) if isinstance(patch_size, int) else list(patch_size)
    if len(size) != len(shapes[0]):
        raise InputError(f"patch_size {size} has {len(size)} axes where the images of {path} have {len(shapes[0])}.")
    small = sum(any(have < want for have, want in zip(shape, size, strict=True)) for shape in shapes)
    if small:
        print(f"{small} of {len(shapes)} images are smaller than the region of {span([size])} and padded")
