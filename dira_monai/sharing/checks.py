"""Whether the weights of a bundle are those of its configs, before it is packed."""

import json
from collections.abc import Mapping
from pathlib import Path

from ..bundle.config import read_config
from ..bundle.run_json import check_preparation
from ..utils.errors import InputError
from ..weights.files import read_weights, unwrap

CONFIGS = ("configs/train.json", "configs/inference.json")
ADVICE = "pack the folder of the run instead, output_dir, or write the values of the training into that file"


def check_weights(files: Mapping[str, Path]) -> None:
    """Refuse weights of another network than the configs name: ``monai.bundle.load`` skips what does not fit."""
    if "models/model.pt" not in files:
        return
    path = files["models/model.pt"]
    weights = unwrap(read_weights(path), path)[0]
    for config in [files[key] for key in CONFIGS if key in files]:
        bundle = read_config(config, purpose="packing")
        if "network_def" not in bundle.parser:
            continue
        network = bundle.build("network_def").state_dict()
        both = [name for name in network.keys() & weights.keys() if network[name].shape == weights[name].shape]
        wrong = [name for name in network | weights if name not in both]
        if wrong:
            raise InputError(
                f"{path}: is not of the network_def in {config}: {len(wrong)} of {len(network)} "
                f"tensors do not fit, first {wrong[0]}; {ADVICE}"
            )


def check_values(files: Mapping[str, Path], record: Path) -> None:
    """Refuse configs that prepare images or name classes otherwise than the training of the weights did.

    Args:
        files: of the bundle, by their names in it.
        record: run.json of the training; where it is missing, nothing is compared.
    """
    if "models/model.pt" not in files:
        return
    for path in [files[key] for key in CONFIGS if key in files]:
        values = json.loads(path.read_text(encoding="utf-8"))
        check_preparation(values, path, record, ADVICE)
