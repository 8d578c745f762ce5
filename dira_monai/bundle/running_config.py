"""The configuration of which a part is being built, found among the callers."""

import inspect
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser


def running_config() -> dict[str, Any] | None:
    """The merged configuration of which a part is being built, as it was read; None outside of a bundle.

    MONAI gives a part no way to its own configuration, so the stack frames are searched for its parser.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser.get()
        frame = frame.f_back
    return None
