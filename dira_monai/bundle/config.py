"""A bundle's configuration, for commands that need some of its values: read, changed and built, errors one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from ..utils.errors import InputError, find_cause
from ..utils.rules import suggest
from .header import check_header
from .options import is_argument
from .values import check_hash


@dataclass(frozen=True)
class BundleConfig:
    """A bundle's configuration."""

    parser: ConfigParser  # with all values
    name: str  # of the files, for errors
    purpose: str  # what the values are needed for, for errors

    def build(self, key: str) -> Any:
        """The value of an id, instantiated.

        Raises:
            InputError: if it is missing or cannot be built.
        """
        if key not in self.parser:
            raise InputError(f"{self.name} has no value {key!r}, which is needed for {self.purpose}.")
        try:
            return self.parser.get_parsed_content(key)
        except Exception as error:  # whatever the expressions of a configuration raise
            raise InputError(f"{self.name}: {key} cannot be built ({find_cause(error)}).") from error

    def build_network(self, seed: int = 0) -> nn.Module:
        """A new ``network_def`` with the random weights of a seed, in evaluation mode, on the configuration's device.

        Raises:
            InputError: as ``build`` and ``to_device`` do.
        """
        self.parser.parse(True)  # else the network of before
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.build("network_def")
        return to_device(network, self.build("device")).eval()


def read_config(
    config: str | Path | Sequence[str | Path],
    overrides: Mapping[str, Any] | None = None,
    files: Sequence[str] = ("train.json",),
    purpose: str = "this command",
    device: str | None = None,
) -> BundleConfig:
    """A bundle's configuration with values replaced.

    New ids may be ``device`` and arguments of something with a ``_target_``, which checks them itself. The value of
    ``bundle_root`` is the folder above that of the first file.

    Args:
        config: folder of a bundle, or configuration files, the later overriding: a list, or joined by commas.
        overrides: values to replace, by their ids, such as ``network_def#features``.
        files: that are meant by a folder.
        purpose: what the values are needed for, for errors.
        device: such as cpu or cuda:0; None: that of the configuration.

    Raises:
        InputError: if a file is missing or invalid, there is no such value to replace, or ``check_header`` refuses one.
    """
    if not isinstance(overrides, Mapping | None):
        raise InputError(f"overrides must be an object such as {{'name': 'value'}}, got {overrides!r}.")
    paths = _find_files(config, files)
    name = " and ".join(map(str, paths))
    parser = ConfigParser()
    try:
        parser.read_config(paths)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read as configuration ({error}).") from error
    folder = Path(paths[0]).resolve().parent
    parser["bundle_root"] = str(folder.parent if folder.name == "configs" else folder)
    for key, value in (dict(overrides or {}) | ({} if device is None else {"device": device})).items():
        if key not in parser and key != "device" and not is_argument(parser, key):
            hint = suggest(key, parser.get())
            raise InputError(f"{name} has no value {key!r} to replace by {value!r}{f'; {hint}' if hint else '.'}")
        if key.endswith("_dir") and value:
            check_hash(f"--{key}", Path(value).absolute())
        parser[key] = value
    check_header(parser.get())
    return BundleConfig(parser, name, purpose)


def _find_files(config: str | Path | Sequence[str | Path], files: Sequence[str]) -> list[str]:
    """The files of a configuration, which all exist."""
    if isinstance(config, str | Path):
        folder = [Path(config, "configs", name) for name in files] if Path(config).is_dir() else None
        config = folder or ([config] if Path(config).is_file() else str(config).split(","))
    for file in config:
        if not Path(file).is_file():
            raise InputError(f"{file} does not exist; name the folder of a bundle or its {' and '.join(files)}.")
    return [str(file) for file in config]


def to_device(network: nn.Module, device: torch.device | str) -> nn.Module:
    """The network on a device.

    Raises:
        InputError: if there is no such device.
    """
    try:
        return network.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise InputError(f"device {device} cannot be used ({find_cause(error)}).") from error
