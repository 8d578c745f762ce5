"""The folder of a run's bundle, written so that it is always whole."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..utils.errors import InputError
from ..utils.files import write_whole

CONFIGS = ("configs/inference.json", "configs/evaluate.json")


def is_same_file(first: Path, second: Path) -> bool:
    """Whether both are one file, or a copy that keeps the time of the other."""
    if not (first.is_file() and second.is_file()):
        return False
    a, b = first.stat(), second.stat()
    return os.path.samestat(a, b) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def place_file(source: Path, target: Path) -> None:
    """Put a file at another place too: the same file where the disk allows it, else a copy.

    Raises:
        InputError: if it cannot be written.
    """
    if is_same_file(source, target):
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:  # another disk, or one without links
            shutil.copy2(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{target}: cannot be written ({error})") from error


def write_bundle(folder: Path, files: Mapping[str, bytes], weights: Mapping[str, Path]) -> None:
    """Write a bundle: a reader finds the one of before or the new one.

    Where the configurations are those of before, each file takes the place of the old one, the weights first; else the
    whole folder does. What killed processes left half written goes.

    Args:
        folder: of the bundle, in a folder that this process holds.
        files: content by name.
        weights: files that become files of ``models``, by name.

    Raises:
        InputError: if it cannot be written.
    """
    for left in (*folder.parent.glob(f".{folder.name}.*.new"), *folder.parent.glob(f".{folder.name}.*.old")):
        shutil.rmtree(left, ignore_errors=True)
    for left in folder.rglob(".*.tmp"):
        left.unlink(missing_ok=True)
    if all((folder / name).is_file() and (folder / name).read_bytes() == files[name] for name in CONFIGS):
        _fill(folder, files, weights)
        return
    made, before = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    try:
        _fill(made, files, weights)
        if folder.exists():
            folder.rename(before)
        made.rename(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error})") from error
    finally:
        for leftover in (made, before):
            shutil.rmtree(leftover, ignore_errors=True)


def _fill(folder: Path, files: Mapping[str, bytes], weights: Mapping[str, Path]) -> None:
    for name, source in weights.items():
        place_file(source, folder / "models" / name)
    for name, content in files.items():
        path = folder / name
        if not (path.is_file() and path.read_bytes() == content):
            write_whole(path, content)
