"""Weights that come with the package, by their names; each file holds what its network needs to be built."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.errors import InputError

FOLDER = Path(__file__).with_name("stored")
CHECKSUMS = {  # SHA-256, since safetensors has none
    "primitives_2d": "4c09d7e9189bac73e6d9f3b057ad358348837f5ed0899a6858be026945c87172",
}


def find_named(name: str | Path | None) -> Path | None:
    """The file of the package's weights of that name; None where there are none, or a file or run is called so.

    Raises:
        InputError: if the file is damaged.
    """
    path = Path(name or "")
    if str(name) not in stored_names() or path.is_file() or (path / "models").exists():
        return None
    file = FOLDER / f"{name}.safetensors"
    if hashlib.sha256(file.read_bytes()).hexdigest() != CHECKSUMS[str(name)]:
        raise InputError(f"{file}: is damaged, its checksum differs; install the package anew")
    return file


def stored_names() -> list[str]:
    """Names of the weights that are here: archives of bundles leave them out."""
    return [name for name in CHECKSUMS if (FOLDER / f"{name}.safetensors").is_file()]


def networks_of(file: Path) -> dict[str, dict[str, Any]]:
    """By the bundles that weights of the package are for, the values of the configuration that build their network."""
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        networks = json.loads(content.metadata()["networks"])
    unets = {name: values for name, values in networks.items() if "segmentation" in name}
    return networks | {name.replace("finetune_segmentation", "pretrain"): values for name, values in unets.items()}


def with_network(values: Mapping[str, Any], pretrained: Any, bundle: str) -> dict[str, Any]:
    """Values of a configuration, put over those that build the network of the package's weights, where it has these.

    Raises:
        InputError: if the weights are for other bundles.
    """
    named = isinstance(pretrained, str | Path) and "network_def" not in values
    if not named or (file := find_named(pretrained)) is None:
        return dict(values)
    networks = networks_of(file)
    if bundle not in networks:
        raise InputError(f"{pretrained}: is for {', '.join(networks)}, the data and the task are for {bundle}")
    return networks[bundle] | dict(values)
