"""The inference configuration of a run: that of its bundle, with the values of the run written in."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..images.find import Image, first_file
from ..utils.errors import InputError
from .config_parts import as_json, copy_parts, find_references, is_expression, needed_imports
from .generated_parts import OWN_READING

NOT_CARRIED = (  # names in both configurations for other things
    *("_desc_", "bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "datalist"),
    *("imports", "device", "network", "initialize", "run", "finalize"),
)
ALWAYS_THERE = {"device"}  # has the same meaning in all configurations


def make_inference_config(trained: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """An inference configuration that needs no value of the run.

    Args:
        trained: the merged configuration of the training.
        template: ``inference.json`` of its bundle.

    Raises:
        InputError: names a value that cannot be written into a file of its own.
    """
    shared = [name for name in template if name in trained and name not in NOT_CARRIED]
    parser = ConfigParser(copy_parts(dict(trained)))
    known = {*shared, *ALWAYS_THERE}
    made = copy_parts(dict(template))
    made["_desc_"] = "stock MONAI, with the values of the training"
    made |= {name: carry_over(trained[name], name, parser, known) for name in shared}
    if "inferer" in template and "class_names" in trained:  # pre-training validates patches, inference whole images
        made["inferer"] = carry_over(parser["validate::inferer"], "validate::inferer", parser, known)
    needed = needed_imports(made, trained.get("imports", []))
    made["imports"] = [*template["imports"], *(line for line in needed if line not in template["imports"])]
    return made


def carry_over(value: Any, place: str, trained: ConfigParser, known: Collection[str]) -> Any:
    """A value as another configuration can have it.

    It stays as it is written where it is plain or refers only to what the other configuration has; else it is what it
    has become in the training. Expressions at the top become plain wherever they can.

    Args:
        value: as it is written.
        place: its id in the configuration of the training.
        trained: that configuration.
        known: ids at the top of the other one.

    Raises:
        InputError: names the value if it is neither.
    """
    if isinstance(value, dict):
        return {key: carry_over(part, f"{place}::{key}", trained, known) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [carry_over(part, f"{place}::{i}", trained, known) for i, part in enumerate(value)]
    if not is_expression(value):
        return _plain(value, place)
    outside = sorted(ref for ref in find_references(value) if ref.split("::")[0] not in known)
    if not outside and "::" in place:
        return value
    try:
        return as_json(trained.get_parsed_content(place))
    except Exception as error:  # whatever the expressions of a configuration raise
        if not outside:
            return value
        raise InputError(f"{place} refers to {outside[0]}, which inference.json does not have") from error


def _plain(value: Any, place: str) -> Any:
    try:
        return as_json(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place} is {type(value).__name__}, which no configuration file can hold") from error


def add_suffixes(config: dict[str, Any], images: Iterable[Image]) -> None:
    """Let inference find files as those of the training, where their suffix is none of the shipped ones."""
    names = [first_file(image).lower() for image in images]
    known = tuple(config.get("suffixes", ()))
    others = {Path(name).suffix for name in names if known and not name.endswith(known) and not Path(name).is_dir()}
    if others - {""}:
        config["suffixes"] = [*known, *sorted(others - {""})]


def read_by_package(config: dict[str, Any]) -> None:
    """Let inference find and read images as a pre-training does, which needs this package."""
    config |= OWN_READING | {"imports": [*config["imports"], *OWN_READING["imports"]]}


def keep_image(transforms: Iterable[Any], modes: Any) -> list[dict[str, Any]]:
    """The transforms of images and labels, as a configuration has them, for the image alone.

    Args:
        transforms: dictionaries with ``keys``; those of the label and selections are left out.
        modes: what ``@modes`` stands for.

    Raises:
        InputError: if one is no dictionary.
    """
    kept = []
    for transform in transforms:
        if not isinstance(transform, dict):
            raise InputError(f"{transform!r} is no transform with keys")
        keys = transform.get("keys")
        keys = ["image", "label"][: len(modes)] if keys == "@keys" else [keys] if isinstance(keys, str) else keys
        if "image" in (keys or ["image"]) and not str(transform.get("_target_")).endswith("SelectItemsd"):
            kept.append({name: _of_image(part, keys or [], modes) for name, part in transform.items()})
            kept[-1] |= {"keys": "image"} if keys else {}
    return kept


def _of_image(value: Any, keys: list[str], modes: Any) -> Any:
    """An argument for the image alone: its own where there is one for each key."""
    if value == "@modes":
        return modes[0]
    if isinstance(value, str):
        return value.replace("@modes", repr(list(modes[:1])))
    return value[keys.index("image")] if isinstance(value, list) and 1 < len(value) == len(keys) else value
