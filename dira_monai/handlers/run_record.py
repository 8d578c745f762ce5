"""The record of each start of a run: configuration, versions, commit and data."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ignite
import monai
import torch
from ignite.engine import Engine, Events

from ..bundle.header import fixed_values
from ..bundle.run_json import NAME, check_preparation, find_record, read_starts
from ..bundle.running_config import running_config
from ..data.digest import data_sha256
from ..datalists.checks import LISTS
from ..utils.distributed import rank, world_size
from ..utils.files import write_json
from ..utils.locking import lock_folder
from ..utils.version import __version__

CURE = "give the values of the training, or evaluate by configs/evaluate.json in output_dir/bundle, which has them"


class RunRecord:
    """Handler that appends one start to ``output_dir/run.json`` when its engine runs for the first time.

    A start has its time, command, device, number of processes, versions, git commit, images and digest of the
    data, the configuration as it was merged, and what a resumed run cannot change of it. All starts of the folder stay,
    the newest is the last. The file is written whole or not at all, by process 0. Further rounds of a federation belong
    to the start of the first.

    Attributes:
        path: of the file.
        datalist: with absolute paths, as the bundle trains on it.
        config: the configuration that makes this handler.

    Args:
        trained: weights that are evaluated, or ``run.json`` of their training; with it, values that prepare images or
            name classes otherwise than the training are refused.

    Raises:
        InputError: in ``record``, if ``run.json`` is there and no record, cannot be written, or a file of the data
            cannot be read.
    """

    def __init__(self, output_dir: str, datalist: Mapping[str, Any], trained: str | None = None) -> None:
        self.path = Path(output_dir) / NAME
        self.datalist = datalist
        self.trains = trained is None
        self.config = running_config()
        if trained is not None:
            record = trained if Path(trained).name == NAME else find_record(trained, Path(output_dir).parent)
            check_preparation(self.config or {}, "the configuration", record, CURE)
        self.recorded = False

    def attach(self, engine: Engine) -> None:
        """Register for the starts of the engine."""
        if rank() == 0:
            engine.add_event_handler(Events.STARTED, self.record)

    def record(self, engine: Engine) -> None:
        """Write the start, once."""
        if self.recorded:
            return
        if self.trains:
            lock_folder(self.path.parent)
        device = torch.device(engine.state.device)
        start = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "device": f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device),
            "processes": world_size(),
            "versions": versions(),
            "git_commit": git_commit(Path(__file__)),
            "images": {name: len(self.datalist[name]) for name in LISTS if name in self.datalist},
            "data_sha256": data_sha256(self.datalist),
            "config": self.config,
            "fixed": fixed_values(self.config or {}),
        }
        write_json(self.path, {"starts": [*read_starts(self.path), start]}, indent=1)
        self.recorded = True


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
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
