"""The commands ``python -m dira_monai pack``, ``verify`` and ``unpack``."""

import json
from collections.abc import Mapping
from pathlib import Path

from ..bundle.values import CLASS_VALUES, PREPARED_VALUES
from ..utils.errors import InputError

CONFIGS = ("configs/train.json", "configs/inference.json")
# by which images are prepared for the weights, and what they give is understood
VALUES = (*CLASS_VALUES, *(name for name in PREPARED_VALUES if name != "spatial_dims"))


def _check_weights(files: Mapping[str, Path]) -> None:
    """Refuse weights of another network than the configs name: ``monai.bundle.load`` skips what does not fit."""
    from ..bundle.config import read_config
    from ..weights.files import read_weights, unwrap

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
                f"tensors do not fit, first {wrong[0]}; write the values of the training into that file"
            )


def _check_values(files: Mapping[str, Path], record: Path) -> None:
    """Refuse configs that prepare images or name classes otherwise than the training of the weights did."""
    from ..bundle.run_json import read_starts

    starts = read_starts(record)
    if "models/model.pt" not in files or not starts:
        return
    trained = starts[-1].get("config") or {}
    for path in [files[key] for key in CONFIGS if key in files]:
        values = json.loads(path.read_text(encoding="utf-8"))
        for name in VALUES:
            both = [None if v == "$None" else v for v in (values.get(name, "$"), trained.get(name, "$"))]
            given = [v for v in both if not str(v).startswith("$")]
            if len(given) == 2 and given[0] != given[1]:  # an expression has the value of its config
                raise InputError(
                    f"{path}: {name} is {given[0]!r} where it was {given[1]!r} in the training, by {record}; "
                    "write the values of the training into that file"
                )


def _judge(root: Path, complete: bool) -> tuple[list[str], list[str]]:
    """What to say of a bundle's folder, and what of it runs that is not plain."""
    from .archive import MANIFEST, check_manifest, list_files
    from .audit import check_files

    files = list_files(root)
    listed = check_manifest(root.name, files, complete)
    agree = f"{listed} files agree with {MANIFEST}" if listed else f"no {MANIFEST}: damage to the files would not show"
    facts, code = check_files(root.name, files)
    return [f"{root.name}: {agree}", *facts], code
