"""Weights that come with the package, by their names; each file holds what its network needs to be built."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("stored")


def find_named(name: str | Path | None) -> Path | None:
    """The file of the package's weights of that name; None where there are none, or a file or folder is called so."""
    if name is None or str(name) != Path(name).name or Path(name).exists():
        return None
    file = FOLDER / f"{name}.safetensors"
    return file if file.is_file() else None


def networks_of(file: Path) -> dict[str, dict[str, Any]]:
    """By the bundles that weights of the package are for, the values of the configuration that build their network."""
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        return json.loads(content.metadata()["networks"])
