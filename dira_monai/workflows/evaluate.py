"""Measuring a run in one call."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..bundle.options import check_options, check_words
from ..bundle.workflow import run_workflow
from ..utils.errors import InputError
from .trained import read_run


def evaluate(run: str | Path, **values: Any) -> Path:
    """Measure the best weights of a run: of a fine-tuning on the test images, of a pre-training on those of validation.

    The same as ``python -m monai.bundle run`` with train.json, the values of the training, and evaluate.json.

    Args:
        run: folder of a run.
        values: of evaluate.json to replace, by their ids, such as ``surface_tolerance=1.0``.

    Returns:
        The folder of the results, ``evaluation`` of the run.

    Raises:
        InputError: if there is no such run or value, or an image cannot be used.
    """
    trained = read_run(run)
    for name in trained.places.keys() & values.keys():
        raise InputError(f"--{name} cannot be given: it is that of the run")
    check_words(values)
    configs = trained.bundle / "configs"
    with TemporaryDirectory() as temporary:
        recorded = Path(temporary, "train.json")
        recorded.write_text(json.dumps(trained.config), encoding="utf-8")
        files = [recorded, configs / "evaluate.json"]
        check_options(values, files, ())
        run_workflow(files, trained.places | values, configs=configs)
    return trained.folder / "evaluation"
