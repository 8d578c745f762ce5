"""Packages that only some files need."""

import importlib
from pathlib import Path
from types import ModuleType

from .errors import InputError


def import_package(name: str, file: str | Path) -> ModuleType:
    """The optional package that a file needs.

    Raises:
        InputError: if it is not installed; the sentence says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{file} needs the package {name}: pip install {name}") from error
