"""What a run was made of, so that a number can be traced to it: configuration, versions, commit and data."""

import hashlib
import inspect
import json
import os
import platform
import random
import stat
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import ignite
import monai
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from .distributed import rank, world_size
from .errors import InputError
from .files import replacing
from .image_setup import each
from .listing import LISTS

SAMPLE = 1000  # files whose content is read
READ = 2**29  # bytes that are read of all of them together
PART = 2**16  # bytes that are read at one place of a larger file


class RunRecord:
    """Handler that appends one start to ``output_dir/run.json`` when its engine runs for the first time.

    A start has its time, command, device, number of processes, versions, git commit, images and fingerprint of the
    data, and the configuration as it was merged. All starts of the folder stay, the newest is the last. The file is
    written whole or not at all, by process 0. Further rounds of a federation belong to the start of the first.

    Attributes:
        path: of the file.
        datalist: with absolute paths, as the bundle trains on it.
        config: the configuration that makes this handler.

    Raises:
        InputError: in ``record``, if ``run.json`` is there and no record, cannot be written, or a file of the data
            cannot be read.
    """

    def __init__(self, output_dir: str, datalist: Mapping[str, Any]) -> None:
        self.path = Path(output_dir) / "run.json"
        self.datalist = datalist
        self.config = running_config()
        self.recorded = False

    def attach(self, engine: Engine) -> None:
        """Register for the starts of the engine."""
        if rank() == 0:
            engine.add_event_handler(Events.STARTED, self.record)

    def record(self, engine: Engine) -> None:
        """Write the start, once."""
        if self.recorded:
            return
        start = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "device": describe_device(torch.device(engine.state.device)),
            "processes": world_size(),
            "versions": versions(),
            "git_commit": git_commit(Path(__file__)),
            "images": {name: len(self.datalist[name]) for name in LISTS if name in self.datalist},
            "data_sha256": fingerprint(self.datalist),
            "config": self.config,
        }
        text = json.dumps({"starts": [*read_starts(self.path), start]}, indent=1, default=str)
        with replacing(self.path) as file:
            file.write((text + "\n").encode())
        self.recorded = True


def read_starts(path: str | Path) -> list[dict[str, Any]]:
    """The starts in a ``run.json``, oldest first; none where there is no file.

    Raises:
        InputError: if the file is something else.
    """
    if not Path(path).exists():
        return []
    try:
        return list(json.loads(Path(path).read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no record of runs ({error!r}); move it away.") from error


def fingerprint(datalist: Mapping[str, Any]) -> str:
    """SHA-256 of what is in the lists: order, labels, name and size of each file, and content of ``SAMPLE`` of them.

    The files whose content is read are drawn with a fixed seed, so that a start need not wait for 100,000. Each has an
    equal share of ``READ``: a smaller file is read as a whole, of a larger one pieces of 64 KiB at even distances, the
    first and the last at its ends, where compressed formats hold their checksum. So a change that keeps name and size
    is seen in small data sets and in compressed files that are drawn, else where a piece falls on it. Of a prepared
    image the SHA-256 is in the list. Names begin in the common folder and dates do not matter, so that a copy of the
    data is the same data. Files whose paths are not absolute (test images and label maps in pre-training) are not read
    by the run and count by name.

    Raises:
        InputError: if a file cannot be read.
    """
    values: list[str] = []  # flat lists of strings: 100,000 small ones would keep the garbage collector busy
    paths: list[str] = []
    sizes: dict[str, int] = {}
    for name in (*LISTS, "words"):
        for entry in datalist.get(name, []):
            own, others = _split(entry)
            values.append(repr((name, len(own), others)))
            paths += own
            for path in own[1:] if "sha256" in entry else own:
                sizes |= _measure(path)
    start = len(os.path.commonpath({os.path.dirname(path) for path in paths} or ["."]).rstrip(os.sep))
    drawn = random.Random(0).sample(list(sizes), min(len(sizes), SAMPLE))
    share = READ // max(1, len(drawn))
    read = list(each(lambda path: _digest(path, sizes[path], share), drawn, "fingerprint of the data", None))
    names = [path[start:] for path in (*paths, *sizes)]
    return hashlib.sha256(json.dumps([values, names, list(sizes.values()), read]).encode()).hexdigest()


def _split(entry: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Absolute paths of images and label of an entry, without dots in them; its other values, the SHA-256 last."""
    images = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    paths, others = [], []
    for value in (*images, entry.get("label")):
        if isinstance(value, str) and os.path.isabs(value):
            paths.append(os.path.normpath(value))
        else:
            others.append(value)
    return paths, [*others, entry.get("sha256")]


def _measure(path: str) -> dict[str, int]:
    """Size of a file by its path; of a folder, which is a DICOM series, the sizes of its files."""
    try:
        facts = os.stat(path)
        if not stat.S_ISDIR(facts.st_mode):
            return {path: facts.st_size}
        inside = sorted(file.path for file in os.scandir(path) if file.is_file())
        return {file: os.stat(file).st_size for file in inside}
    except OSError as error:
        raise _unreadable(path, error) from error


def _digest(path: str, size: int, share: int) -> str:
    """SHA-256 of a file, or of pieces at even distances of one that is larger than its share."""
    if size <= max(share, 2 * PART):
        places, length = [0], size
    else:
        gaps = max(1, share // PART - 1)
        places, length = [(size - PART) * number // gaps for number in range(gaps + 1)], PART
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for place in places:
                file.seek(place)
                digest.update(file.read(length))
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _unreadable(path: str, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read for the record of the run: {error.strerror}.")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    from . import __version__  # here, since the package is not complete when this file is imported

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "monai": monai.__version__,
        "ignite": ignite.__version__,
        "dira_monai": __version__,
    }


def git_commit(file: Path) -> str:
    """Commit of the repository that holds the file, with ``-dirty`` behind it where tracked files were changed.

    "unknown" where the file is in no repository, as after an installation, or git is missing.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # an environment inside somebody's repository is not in it
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def describe_device(device: torch.device) -> str:
    """The device, of a GPU with its name."""
    return f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def running_config() -> dict[str, Any] | None:
    """The merged configuration of which a part is being built, as it was read; None outside of a bundle.

    MONAI gives a part no way to its own configuration, so it is looked for among the callers.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser.get()
        frame = frame.f_back
    return None
