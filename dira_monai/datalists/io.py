"""Datalists as files: written, loaded, and kept where a run goes on."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..images.find import files_of, first_file, map_files
from ..utils.errors import InputError
from ..utils.files import atomic_write
from .checks import LISTS, check_datalist, entries_of, find_root, first_names
from .patients import group_of, patient_of


def write_datalist(datalist: dict, path: str | Path) -> None:
    """Write the datalist as JSON, complete or not at all; missing folders are made."""
    with atomic_write(path) as file:
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
    datalist = read_datalist(path)
    check_datalist(datalist, path)
    make_absolute(datalist, path, dataset_dir)
    return datalist


def read_datalist(path: str | Path) -> dict:
    """What the JSON file holds, as it is; a missing or broken file is refused."""
    if not Path(path).is_file():
        raise InputError(f"the datalist {path} does not exist.")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"the datalist {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"the datalist {path} is not valid JSON: {error}.") from error


def make_absolute(
    datalist: dict,
    path: str | Path,
    dataset_dir: str | Path | None = None,
    lists: Sequence[str] = LISTS[:2],
    keys: Sequence[str] = ("image",),
) -> None:
    """Make ``dataset_dir`` and the files of all entries absolute, in place; a missing file is refused.

    Args:
        datalist: a checked one.
        path: its file.
        dataset_dir: where its paths start; by default ``find_root``.
        lists: the lists whose entries are meant.
        keys: the parts of an entry that are files.
    """
    root = Path(os.path.abspath(dataset_dir)) if dataset_dir else find_root(datalist, path)
    datalist["dataset_dir"] = str(root)
    for entry in entries_of(datalist, lists):
        for key in keys:
            entry[key] = map_files(entry[key], lambda file: str(root / file))
            for file in files_of(entry[key]):
                if not os.path.exists(file):  # a folder is a DICOM series
                    raise InputError(f"{file}, {'an' if key == 'image' else 'a'} {key} of {path}, does not exist.")


def read_own(path: Path) -> dict:
    """The list of a run, as it is; empty where there is none, or a broken one."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept if all(isinstance(kept[key], list) for key in LISTS[:2]) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def take_list(given: dict, source: Path, path: Path, resume: bool) -> None:
    """Copy a list that the user gives, which names its ``dataset_dir``, to the ``path`` of that of the run.

    Raises:
        InputError: if ``resume`` is set and the list has patients or images of the run in another of its lists.
    """
    if source.resolve() == path.resolve():
        return
    if resume and (kept := read_own(path)) and (moved := _moved(given, kept)):
        raise InputError(
            f"{source} has {len(moved)} patients in other lists than {path}, with which the training that goes on "
            f"began: {_describe(moved)}; correct it, or train anew in another output_dir."
        )
    write_datalist(given, path)


def keep_places(made: dict, kept: dict, path: Path, resume: bool) -> tuple[dict, str]:
    """A new list with the patients of an earlier one where they were, and a line with counts of the others.

    What a table or folders say of training, validation and test is followed: only what is drawn is put back.

    Raises:
        InputError: if ``resume`` is set and such a table moves a patient, or joins patients of several lists.
    """
    drawn = {"training", *made.get("drawn", LISTS[:2])}
    moved = _moved(made, kept)
    lists: dict[str, list[dict]] = {name: [] for name in LISTS if name in made}
    for name, entries in [(name, made[name]) for name in lists]:
        for entry in entries:
            places = moved.get((group_of(entry), name), {name})
            own = next(iter(places))
            lists[own if len(places) == 1 and {own, name} <= drawn else name].append(entry)
    made = made | {name: sorted(entries, key=lambda e: first_file(e["image"])) for name, entries in lists.items()}
    if resume and (wrong := _moved(made, kept)):
        raise InputError(
            f"the splits of the data have {len(wrong)} patients in other lists than {path}, with which the training "
            f"that goes on began: {_describe(wrong)}; correct them, or train anew in another output_dir."
        )
    before = {patient_of(entry) for name in LISTS for entry in kept.get(name, [])}
    now = {name: {patient_of(entry) for entry in made[name]} for name in lists}
    added = {name: len(patients - before) for name, patients in now.items()}
    stay = len(before & set().union(*now.values()))
    counts = ", ".join(f"{count} for {name}" for name, count in added.items())
    words = f"{stay} patients keep their places, {sum(added.values())} are new ({counts}), {len(before) - stay} gone"
    return made, f"{path}: {words}"


def _keys(entry: dict, datalist: dict) -> tuple[str, str]:
    return f"patient {patient_of(entry)}", f"image {_real(entry, datalist)}"


def _moved(made: dict, kept: dict) -> dict[tuple[str, str], set[str]]:
    """Groups that were in another list before, or patients or images of theirs, and the list now: those of before."""
    places: dict[str, set[str]] = {}
    for name in LISTS:
        for entry in kept.get(name, []):
            for key in (*_keys(entry, kept), f"pixels {entry.get('digest')}"):
                places.setdefault(key, set()).add(name)
    before: dict[tuple[str, str], set[str]] = {}
    for name in LISTS:
        for entry in made.get(name, []):
            keys = [*_keys(entry, made), f"pixels {entry['digest']}" if "digest" in entry else ""]
            before.setdefault((group_of(entry), name), set()).update(*(places.get(key, ()) for key in keys))
    return {(group, name): lists for (group, name), lists in before.items() if lists - {name}}


def _real(entry: dict, datalist: dict) -> str:
    return os.path.realpath(os.path.join(datalist.get("dataset_dir", ""), first_file(entry["image"])))


def _describe(moved: Mapping[tuple[str, str], set[str]]) -> str:
    """The first patients with their lists before and now."""
    return first_names([f"{who} ({' and '.join(sorted(old))}, now {new})" for (who, new), old in moved.items()])
