"""Whether the weights of a bundle are those of its configs, before it is packed."""

import json
from collections.abc import Mapping
from pathlib import Path

from ..bundle.config import read_config
from ..bundle.run_json import read_starts
from ..bundle.values import CLASS_VALUES, PREPARED_VALUES
from ..utils.errors import InputError
from ..weights.files import read_weights, unwrap

CONFIGS = ("configs/train.json", "configs/inference.json")
# by which images are prepared for the weights, and what they give is understood
VALUES = (*CLASS_VALUES, *(name for name in PREPARED_VALUES if name != "spatial_dims"))
ADVICE = "write the values of the training into that file"


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
        record: output/run.json of the training; where it is missing, nothing is compared.
    """
    starts = read_starts(record)
    if "models/model.pt" not in files or not starts:
        return
    trained = starts[-1].get("config") or {}
    for path in [files[key] for key in CONFIGS if key in files]:
        values = json.loads(path.read_text(encoding="utf-8"))
        for name in VALUES:
            both = [None if v == "$None" else v for v in (values.get(name, "$"), trained.get(name, "$"))]
            given = [v for v in both if not str(v).startswith("$")]  # an expression has the value of its config
            if len(given) == 2 and given[0] != given[1]:
                raise InputError(
                    f"{path}: {name} is {given[0]!r} where it was {given[1]!r} in the training, by {record}; {ADVICE}"
                )
