"""Running a bundle in this process, with the sentence of a part's error in the place of MONAI's."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from ..utils.errors import InputError, find_input_error
from .values import check_hash


def run_workflow(files: Sequence[str | Path], values: Mapping[str, Any], configs: Path | None = None) -> None:
    """Initialize, run and finalize a configuration, as ``python -m monai.bundle run`` does.

    Args:
        files: of the configuration, the later overriding.
        values: to replace, by their ids; None arrives as None, where that command would leave it out.
        configs: folder of logging.conf and metadata.json; None: that of the first file.

    Raises:
        InputError: where a part of the configuration raised one or does not take a value; any other error comes as
            MONAI wraps it.
    """
    for name in ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "pretrained"):
        check_hash(f"--{name}", values.get(name))
    beside = Path(files[0]).parent if configs is None else configs
    workflow = ConfigWorkflow(
        [str(file) for file in files],
        meta_file=str(beside / "metadata.json"),
        logging_file=str(beside / "logging.conf"),
        workflow_type="train",
        **values,
    )
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    except RuntimeError as error:
        if known := find_input_error(error) or _unknown_argument(error, values):
            raise known from None
        raise


def _unknown_argument(error: BaseException, values: Mapping[str, Any]) -> InputError | None:
    """The sentence for a value, such as ``network_def#width``, that what the configuration makes does not take."""
    while error.__cause__ is not None:
        error = error.__cause__
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    named = [name for name in values if found and re.split("#|::", name)[-1] == found[1]]
    return InputError(f"--{named[0]}: {error}") if named else None
