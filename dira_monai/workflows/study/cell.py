"""One training of a study, in a process of its own: ``python -m dira_monai.workflows.study.cell FOLDER``."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from ...utils.errors import InputError
from ...utils.files import write_json

NAME = "cell.json"


def read_cell(folder: Path) -> dict[str, Any]:
    """What ``cell.json`` says: verb, data, arguments, and how far the training is; empty where there is none."""
    path = folder / NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def is_finished(folder: Path) -> bool:
    """Whether nothing is left to do in the cell."""
    return bool(read_cell(folder).get("finished"))


def update_cell(folder: Path, **changes: Any) -> None:
    """Write changes into ``cell.json``."""
    write_json(folder / NAME, read_cell(folder) | changes, indent=1)


def run_cell(folder: Path) -> None:
    """Train, from where an earlier process was killed, and evaluate on the test images; finished steps are left out."""
    from ..evaluate import evaluate
    from ..train import finetune, pretrain

    cell = read_cell(folder)
    if not cell.get("trained"):
        training = {"pretrain": pretrain, "finetune": finetune}[cell["verb"]]
        resume = (folder / "run.json").is_file()
        training(cell["data"], run=folder, hours=None, resume=resume, **cell["arguments"])
        update_cell(folder, trained=True)
    if cell["verb"] == "finetune":
        evaluate(folder, tensorboard=False)
        if not cell["keep_weights"]:
            shutil.rmtree(folder / "models")
            shutil.rmtree(folder / "bundle")
    update_cell(folder, finished=True, failed=None)


def main() -> None:
    """Run the cell that the command line names; an error stands in ``cell.json`` as well."""
    folder = Path(sys.argv[1])
    try:
        run_cell(folder)
    except InputError as error:
        update_cell(folder, failed=str(error))
        sys.exit(f"error: {error}")
    except Exception as error:
        update_cell(folder, failed=repr(error))
        raise


if __name__ == "__main__":
    main()
