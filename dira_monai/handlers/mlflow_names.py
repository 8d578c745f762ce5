"""Names of metrics that MLflow takes, where classes have names such as ``tumor (core)``."""

import posixpath
import re
from collections.abc import Iterable

from ignite.engine import Engine
from monai.handlers import MLFlowHandler

REFUSED = r"[^\w.\-/: ]"  # MLflow takes letters, digits and _ . - / : and spaces


def name_for_mlflow(handlers: Iterable[object]) -> None:
    """Let each ``MLFlowHandler`` among handlers log the metrics of an epoch by names that MLflow takes."""
    for handler in handlers:
        if isinstance(handler, MLFlowHandler):
            handler.epoch_logger = _logger(handler)


def _logger(handler: MLFlowHandler) -> object:
    def log(engine: Engine) -> None:
        metrics, run = engine.state.metrics, handler.cur_run.info.run_id
        for name, legal in legal_names(metrics).items():
            step = handler.global_epoch_transform(engine.state.epoch)
            handler.client.log_metric(run, legal, float(metrics[name]), step=step)

    return log


def legal_names(names: Iterable[str]) -> dict[str, str]:
    """A name that MLflow takes for each one, ``_`` for what it refuses; two stay different by ``_2``, ``_3``, ..."""
    legal = {name: _replace(name) for name in names}
    found = {name: name for name in legal if legal[name] == name}  # these keep theirs
    for name in legal:
        number, wanted = 1, legal[name]
        while name not in found and wanted in found.values():
            number += 1
            wanted = f"{legal[name]}_{number}"
        found.setdefault(name, wanted)
    return found


def _replace(name: str) -> str:
    """MLflow makes a path of a name, which must be its shortest form."""
    text = re.sub(REFUSED, "_", name)
    return text if posixpath.normpath(text) == text else text.replace("/", "_")
