"""A trained classifier, built from the configuration of its bundle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ReferenceResolver
from torch import nn

from ..utils.errors import InputError, find_input_error


def replace_values(parser: ConfigParser, values: Mapping[str, Any], config: str | Path) -> None:
    """Replace values of a configuration by their ids.

    New ids may be ``bundle_root``, ``device`` and arguments of something with a ``_target_``, which judges them itself.

    Args:
        parser: with the configuration.
        values: by their ids, such as ``network_def#features``.
        config: its file, for errors.

    Raises:
        InputError: if the configuration has no such id.
    """
    for name, value in values.items():
        if name not in parser and name not in ("bundle_root", "device") and not _is_argument(parser, name):
            raise InputError(f"{config} has no value {name!r} to replace by {value!r}.")
        parser[name] = value


def _is_argument(parser: ConfigParser, name: str) -> bool:
    """Whether the id belongs to something that is instantiated."""
    parent, _ = ReferenceResolver.split_id(name, last=True)
    found = parser.get(parent) if parent else None
    return isinstance(found, dict) and "_target_" in found


def build_value(parser: ConfigParser, name: str, config: str | Path, purpose: str = "localization") -> Any:
    """What the id of a configuration stands for, instantiated.

    Args:
        parser: with the configuration.
        name: the id.
        config: its file, for errors.
        purpose: what an error says that needs it.

    Raises:
        InputError: if there is no such id, or it cannot be built.
    """
    if name not in parser:
        raise InputError(f"{config} has no value {name!r}, which {purpose} needs.")
    try:
        return parser.get_parsed_content(name)
    except Exception as error:  # whatever the expressions of a configuration raise
        raise InputError(f"{config}: {name} cannot be built ({find_cause(error)}).") from error


def find_cause(error: BaseException) -> str:
    """The first line of what lies at the root of an exception, or its kind where it has no text."""
    known = find_input_error(error)
    while known is None and error.__cause__ is not None:
        error = error.__cause__
    cause = known or error
    return next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__).rstrip(".")


def to_device(network: nn.Module, device: torch.device | str) -> nn.Module:
    """The network on a device.

    Raises:
        InputError: if there is no such device.
    """
    try:
        return network.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise InputError(f"device {device} cannot be used ({find_cause(error)}).") from error


def read_config(
    config: str | Path | Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    files: Sequence[str] = ("train.json",),
) -> tuple[ConfigParser, str]:
    """A bundle's configuration with values replaced, and its name for errors.

    Args:
        config: folder of a bundle, or configuration files, the later overriding.
        overrides: values to replace, by their ids.
        files: that are meant by a folder.

    Raises:
        InputError: if there is no such file, or no such value.
    """
    folder = isinstance(config, str | Path) and Path(config).is_dir()
    paths = [str(Path(str(config), "configs", name)) for name in files] if folder else config
    name = str(paths) if isinstance(paths, str | Path) else " and ".join(map(str, paths))
    parser = ConfigParser()
    try:
        parser.read_config(paths)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read as configuration ({error}).") from error
    replace_values(parser, overrides or {}, name)
    return parser, name


def build(parser: ConfigParser, key: str, name: str, purpose: str) -> Any:
    """A value of the configuration, built.

    Raises:
        InputError: if it is missing or cannot be built.
    """
    if key not in parser:
        raise InputError(f"{name} has no value {key!r}, which {purpose} need.")
    try:
        return parser.get_parsed_content(key)
    except Exception as error:  # whatever the expressions of a configuration raise
        raise InputError(f"{key} of {name} cannot be built ({find_cause(error)}).") from error
