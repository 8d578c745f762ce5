"""The evaluation of a run as one configuration: its training and ``evaluate.json`` merged, and what neither needs."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from ..bundle.values import list_texts
from . import generated_parts as made
from .config_parts import as_json, copy_parts, find_references, is_expression, needed_imports, needed_parts
from .inference_config import ALWAYS_THERE, NOT_CARRIED

ONE_PROCESS = {"rank": 0, "world_size": 1}
OF_THE_PACKAGE = "dira_monai"
BUILT = {"network", "initialized", "objective", "objective_def", "parameters"}  # no values, and take long to build


def make_evaluation_config(
    trained: Mapping[str, Any], overlay: Mapping[str, Any], inference: Mapping[str, Any]
) -> dict[str, Any]:
    """An evaluation of a fine-tuning that needs no value of the run and, with a stock network, no package but MONAI.

    Args:
        trained: the merged configuration of the training.
        overlay: ``evaluate.json`` of its bundle.
        inference: the inference configuration of the run, whose values are taken.
    """
    merged = merge_configs(trained, overlay, inference)
    finds = made.FOLDERS if "multi_label" in trained else made.PAIRS
    own = made.FRAME | made.NEW_FOLDER | (made.ONLY_LISTS if inference.get("multi_label") else finds)
    merged |= own
    merged["validate"]["dataset"] |= made.STOCK_DATASET
    merged["validate"]["handlers"] = [h for h in merged["validate"]["handlers"] if not _of_package(h.get("_target_"))]
    for step in ("initialize", "run"):
        merged[step] = [word for word in merged[step] if not _of_package(word)]
    merged["initialize"].append(made.EMPTY)
    return prune(merged, own, [*made.IMPORTS, *merged["imports"]])


def make_pretraining_evaluation(
    trained: Mapping[str, Any], overlay: Mapping[str, Any], inference: Mapping[str, Any]
) -> dict[str, Any]:
    """The same of a pre-training, which needs no value of the run, but this package."""
    parser = ConfigParser(copy_parts(dict(trained)))
    at_hand = dict(trained)  # such as the length of the queue, which depends on the number of processes
    for name, value in trained.items():
        of_package = is_expression(value) and OF_THE_PACKAGE in value
        if name not in made.FRAME and of_package and not find_references(value) & BUILT:
            with suppress(Exception):  # what is no plain value stays as it is
                at_hand[name] = as_json(parser.get_parsed_content(name))
    merged = merge_configs(at_hand, overlay, inference) | made.FRAME | made.RUN_FOLDER
    return prune(merged, made.FRAME | made.RUN_FOLDER, merged["imports"])


def merge_configs(
    trained: Mapping[str, Any], overlay: Mapping[str, Any], inference: Mapping[str, Any]
) -> dict[str, Any]:
    """The training with ``evaluate.json`` over it, for one process on any device, with the values of the inference."""
    parser = ConfigParser(copy_parts(dict(trained)))
    carried = [name for name in inference if name in trained and name not in NOT_CARRIED]
    shared = {name: inference[name] for name in [*carried, *ALWAYS_THERE]}
    for name, value in {**shared, **made.FRAME, **ONE_PROCESS, "mlflow": None, "resume": False}.items():
        if name in trained:
            parser[name] = copy_parts(value)
    for name, value in overlay.items():
        merge_kv(parser, name, copy_parts(value))
    return parser.get()


def prune(merged: Mapping[str, Any], first: Mapping[str, Any], imports: list[str]) -> dict[str, Any]:
    """What ``run`` and ``initialize`` need of a configuration, some of its ids first."""
    ordered = {name: merged[name] for name in [*first, *(name for name in merged if name not in first)]}
    kept = needed_parts(ordered, ["_desc_", *made.FRAME, "initialize", "run"])
    where = list(kept).index("initialize") if "initialize" in kept else len(kept)
    names = list(kept)
    lines = needed_imports(kept, imports)
    return {n: kept[n] for n in names[:where]} | {"imports": lines} | {n: kept[n] for n in names[where:]}


def _of_package(value: Any) -> bool:
    return any(OF_THE_PACKAGE in text or "package" in find_references(text) for text in list_texts(value))


def parts_of_package(*configs: Mapping[str, Any]) -> list[str]:
    """The parts of this package that configurations name."""
    texts = (text for config in configs for text in list_texts(config))
    return sorted({part for text in texts for part in re.findall(rf"{OF_THE_PACKAGE}\.\w+", text)})


def require_package(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that ends in a sentence where it names parts of this package and it is not there."""
    parts = parts_of_package(config)
    if not parts:
        return dict(config)
    sentence = f"this bundle needs the package dira-monai, for {', '.join(parts)}; install it"
    lists = {name: [*made.PRESENCE[name], *config[name]] for name in ("imports", "initialize")}
    return {"needs": sentence, "package": made.PRESENCE["package"], **config, **lists}
