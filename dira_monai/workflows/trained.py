"""What a run was trained with, by its record."""

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ..bundle.run_json import read_starts
from ..bundle.shipped import bundle_folders
from ..utils.errors import InputError
from .run_folder import RECORD


@dataclass(frozen=True)
class TrainedRun:
    """A run of ``pretrain`` or ``finetune``.

    Attributes:
        folder: absolute.
        config: the configuration of its last start, with all values.
    """

    folder: Path
    config: dict[str, Any]

    @property
    def bundle(self) -> Path:
        """Folder of the bundle that was trained.

        Raises:
            InputError: if it is none of this package.
        """
        name, known = PurePath(str(self.config.get("bundle_root"))).name, bundle_folders()
        if name not in known:
            raise InputError(
                f"{self.folder}: was trained by {name}, expected a bundle of this package ({', '.join(known)})"
            )
        return known[name]

    @property
    def places(self) -> dict[str, Any]:
        """The values that say where the run lies now."""
        folder = str(self.folder)
        return {"bundle_root": str(self.bundle), "output_dir": folder, "ckpt_dir": f"{folder}/models"}


def read_run(run: str | Path) -> TrainedRun:
    """The run in a folder.

    Raises:
        InputError: if there is none, or it has no weights yet.
    """
    folder = Path(run).expanduser().absolute()
    starts = read_starts(folder / RECORD)
    if not starts or not starts[-1].get("config"):
        raise InputError(f"{folder}: holds no run; give the folder that pretrain or finetune named")
    if not (folder / "models/model.pt").is_file():
        raise InputError(
            f"{folder}: has no weights, models/model.pt; give the folder of a finished pretrain or finetune"
        )
    return TrainedRun(folder, starts[-1]["config"])
