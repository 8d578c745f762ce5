"""The folder of a run: made for a new one, never over another one, and found again."""

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..sharing.archive import find_bundle
from ..utils.errors import InputError
from ..utils.files import user_path

RECORD = "run.json"
NO_NAMES = ("", "None", "null", "True", "False", "true", "false")  # what a command line makes of no folder


@contextmanager
def run_folder(verb: str, data: str | Path, run: str | Path | None, resume: bool) -> Iterator[Path]:
    """The folder that a run writes to, which is printed at the start and at the end.

    Where the folder was empty and the block fails before a training has begun, it is deleted again.

    Args:
        verb: pretrain or finetune, for the name of a new folder.
        data: folder or datalist, for the name of a new folder.
        run: the folder; None: a new one below ``$DIRA_RUNS``, else ``~/dira-monai``.
        resume: whether the run that is in the folder goes on.

    Raises:
        InputError: if the folder holds a run and ``resume`` is not set, or cannot be made.
    """
    if run is None and resume:
        raise InputError("name the folder of the run that goes on by --run")
    folder = _new(f"{verb}_{_stem(data)}") if run is None else _given(run, resume)
    made = not any(folder.iterdir())
    print(f"run: {folder}")
    try:
        yield folder
    except BaseException:
        if made and not (folder / RECORD).exists():
            with suppress(OSError):  # whatever else lies there stays
                for name in ("datalist.json", "plan.json"):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()
        raise
    print(f"run: {folder}")


def find_finished(run: str | Path) -> tuple[Path, Path]:
    """The folder of a run, and the bundle that its training has left there.

    Raises:
        InputError: if there is none.
    """
    folder = user_path(run).absolute()
    if not (folder / RECORD).is_file():
        raise InputError(f"{folder}: holds no run; give the folder that a training named, its --run or --output_dir")
    return folder, find_bundle(folder)


def _given(run: str | Path, resume: bool) -> Path:
    if str(run).strip() in NO_NAMES:
        raise InputError(f"--run {run}: name a folder, or leave --run out for a new one")
    folder = user_path(run).absolute()
    if (folder / RECORD).exists() and not resume:
        raise InputError(f"{folder}: holds a run already; name another folder, or continue it by --resume True")
    _make(folder)
    return folder


def _new(name: str) -> Path:
    """A new folder of that name, with a number behind it where there is one already."""
    home = user_path(os.environ.get("DIRA_RUNS") or "~/dira-monai").absolute()
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(home / name for name in names if _make(home / name))


def _make(folder: Path) -> bool:
    """Whether the folder is new."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise InputError(f"{folder}: is a file; name a folder for the run") from None
        return False
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error}); name another folder by --run") from error
    return True


def _stem(data: str | Path) -> str:
    """The name of a folder or datalist, in letters, digits and ._- only."""
    return re.sub(r"[^\w.-]", "_", Path(os.path.abspath(data)).name.removesuffix(".json"))
