"""The configuration of which a part is being built, found among the callers."""

import inspect
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from monai.utils import ensure_tuple


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


def running_options() -> tuple[list[str], dict[str, Any]] | None:
    """Files and options of the ``monai.bundle.run`` that builds a part, also those of its args_file; None outside."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code is not create_workflow.__code__:
        frame = frame.f_back
    return frame and ([str(file) for file in ensure_tuple(frame.f_locals["config_file"])], frame.f_locals["_args"])


def _caller(kind: type) -> Any:
    """The nearest caller that is a method of such an object: the object; None where there is none."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if isinstance(found := frame.f_locals.get("self"), kind):
            return found
        frame = frame.f_back
    return None
