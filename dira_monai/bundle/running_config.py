"""The configuration of which a part is being built, found among the callers."""

import inspect
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow


def running_config() -> dict[str, Any] | None:
    """The merged configuration of which a part is being built, as it was read; None outside of a bundle.

    MONAI gives a part no way to its own configuration, so the stack frames are searched for its parser.
    """
    parser = _caller(ConfigParser)
    return None if parser is None else parser.get()


def running_configs_folder() -> Path | None:
    """The folder of the configuration files of which a part is being built; None outside of a bundle's run."""
    workflow = _caller(ConfigWorkflow)
    return None if workflow is None else Path(workflow.config_root_path)


def _caller(kind: type) -> Any:
    """The nearest caller that is a method of such an object: the object; None where there is none."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if isinstance(found := frame.f_locals.get("self"), kind):
            return found
        frame = frame.f_back
    return None
