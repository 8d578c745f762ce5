"""Measuring a run in one call."""

from pathlib import Path
from typing import Any

from ..bundle.config import read_config
from ..bundle.header import check_header
from ..bundle.options import check_options, check_words
from ..bundle.workflow import run_workflow
from ..data.trained_on import tell_seen
from ..utils.errors import InputError
from .run_folder import find_finished

OWN_HANDLERS = [  # that the evaluation of a fine-tuning, which runs with MONAI alone, does not have
    {
        "_target_": "dira_monai.RunRecord",
        "output_dir": "@evaluation_dir",
        "datalist": "${@split: @validate#dataset#data}",
    },
    {"_target_": "dira_monai.HtmlReport", "output_dir": "@evaluation_dir"},
]
BUNDLE_SCORES = {"_target_": "dira_monai.BundleScores", "datalist_file": "@datalist_file", "split": "@split"}


def evaluate(run: str | Path, **values: Any) -> Path:
    """Measure the best weights of a run: of a fine-tuning on the test images, of a pre-training on those of validation.

    The same as ``python -m monai.bundle run`` with ``bundle/configs/evaluate.json`` of the run, with a report, and with
    the scores of the test images in the bundle's model card.

    Args:
        run: folder of a run, which is ``output_dir`` of a training.
        values: of evaluate.json to replace, by their ids, such as ``surface_tolerance=1.0``.

    Returns:
        The folder of the results, ``evaluation`` of the run.

    Raises:
        InputError: if there is no such run or value, or an image cannot be used.
    """
    folder, bundle = find_finished(run)
    results = folder / "evaluation"
    places = {"bundle_root": str(bundle), "ckpt_dir": str(bundle / "models"), "output_dir": str(results)}
    for name in places.keys() & values.keys():
        raise InputError(f"--{name} cannot be given: it is that of the run")
    check_words(values)
    read = read_config(bundle, files=("evaluate.json",), purpose="an evaluation")
    config = read.parser
    files = [bundle / "configs/evaluate.json"]
    check_options(values, files, ())
    check_header(config.get() | values)
    own: dict[str, Any] = {}
    if "objective" not in config:
        config.update(places | values)
        tell_seen(read.build("validate#dataset#data"), folder / "datalist.json")
        handlers = [BUNDLE_SCORES | {"run": str(folder)}, *OWN_HANDLERS, *config["validate#handlers"]]
        own = {"validate#dataset#_target_": "dira_monai.CheckedCacheDataset", "validate#handlers": handlers}
    run_workflow(files, places | own | values)
    return results
