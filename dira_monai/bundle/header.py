"""The values at the top of a configuration, checked before a run reads or writes anything, and when it goes on."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.errors import InputError, find_cause
from ..utils.files import check_writable
from ..utils.rules import is_expression, is_object
from .header_values import HEADER
from .run_json import find_record, read_starts

MADE = "_target_"  # in the words of a rule: the value is an object, or a list of some
FOLDERS = ("output_dir", "ckpt_dir")


def check_values(values: Mapping[str, Any], spatial_dims: int = 0, defaults: bool = False) -> None:
    """Refuse values that break their rule of ``HEADER``; names that it lacks and expressions are let pass.

    Args:
        values: by their names.
        spatial_dims: 2 or 3; 0: not known.
        defaults: None stands for a default everywhere.

    Raises:
        InputError: names the value, what it must be and what it is.
    """
    for name in HEADER.keys() & values.keys():
        value, rule = values[name], HEADER[name].rule
        if not is_expression(value) and not (defaults and value is None) and not rule.fits(value, spatial_dims):
            where = f" where spatial_dims is {spatial_dims}" if rule.fits(value, 0) else ""
            raise InputError(f"--{name} must be {rule.told}, got {value!r}{where}.")


def check_header(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ``header_values`` of a merged configuration, each of which keeps its rule.

    Raises:
        InputError: names the value, what it must be and what it is, or two values that do not fit together.
    """
    check_values({"spatial_dims": config.get("spatial_dims", 2)})
    dims = config.get("spatial_dims", 0)
    dims = 0 if is_expression(dims) else dims
    check_values(config, dims)
    values = header_values(config)
    check_values(values, dims)
    warmup, epochs = values.get("warmup_epochs", 0), values.get("max_epochs", float("inf"))
    if warmup > epochs:
        raise InputError(f"--warmup_epochs must be at most max_epochs ({epochs}), got {warmup}.")
    return values


def check_run(config: Mapping[str, Any]) -> None:
    """Refuse values that no run may have, folders that it cannot write, and what a resumed run cannot change.

    Raises:
        InputError: as ``check_header``, or names the folder.
    """
    values = check_header(config)
    for name in FOLDERS if "train" in config else FOLDERS[:1]:
        if name in values:
            check_writable(values[name])
    if values.get("resume") and "ckpt_dir" in values:
        _check_resumed(values)


def header_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``HEADER`` in a merged configuration, expressions evaluated, of objects their kind alone.

    Left out is what refers to objects, or to anything below the values at the top.

    Raises:
        InputError: names an expression that cannot be evaluated.
    """
    from monai.bundle import ConfigParser  # here, since --help needs none of it

    there = [name for name in HEADER if name in config]
    parser = ConfigParser(dict(config))
    values = {}
    for name in there:
        value = config[name]
        if is_object(value):
            values[name] = {MADE: value[MADE]}
        elif _is_plain(name, value):
            try:
                values[name] = parser.get_parsed_content(name) if is_expression(value) else value
            except Exception as error:  # whatever expressions raise
                raise InputError(f"--{name} {value}: cannot be computed ({find_cause(error)}).") from error
    return values


def _is_plain(name: str, value: Any) -> bool:
    """Whether a value is one of plain values alone, so that it costs nothing to evaluate it."""
    names = {name, *re.findall(r"@(\w+)", value if isinstance(value, str) else "")}
    return all(found in HEADER and MADE not in HEADER[found].rule.told for found in names)


def fixed_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``header_values`` that a resumed run must have as they are."""
    return {name: value for name, value in header_values(config).items() if HEADER[name].fixed}


def _check_resumed(values: Mapping[str, Any]) -> None:
    """Refuse other values than those of the run that goes on, where they would have no effect or break it."""
    checkpoint = Path(values["ckpt_dir"], "checkpoint.pt")
    record = find_record(checkpoint, values["output_dir"])
    before = (read_starts(record) or [{}])[-1].get("fixed", {}) if checkpoint.exists() else {}
    for name, value in before.items():
        now = values.get(name)
        now = list(now) if isinstance(now, tuple) else now
        if name in values and now != value:
            raise InputError(
                f"--{name} is {now!r} where it was {value!r} before, by {record}, and a resumed run cannot change it; "
                "give it as before, or begin a new run in another folder"
            )
