"""What a run was made of, so that a number can be traced to it: configuration, versions, commit and data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.errors import InputError
from .values import CLASS_VALUES, PREPARED_VALUES

NAME = "run.json"
# by which images and labels are prepared for the weights, and what they give is understood
PREPARATION = (
    *CLASS_VALUES,
    *(name for name in PREPARED_VALUES if name != "spatial_dims"),
    *("patch_size", "modalities", "reader", "label_reader", "label_threshold", "label_values"),
)


def find_record(weights: str | Path, *folders: str | Path) -> Path:
    """``run.json`` of the training that made weights: beside them, else in the folder of its outputs.

    Args:
        weights: the file.
        folders: where it may lie too; ``output`` beside the folder of the weights is always asked.
    """
    places = [Path(weights).parent, *folders, Path(weights).parent.parent / "output"]
    found = (Path(place, NAME) for place in places)
    return next((path for path in found if path.is_file()), Path(places[-1], NAME))


def read_starts(path: str | Path) -> list[dict[str, Any]]:
    """The starts in a ``run.json``, oldest first; none where there is no file.

    Raises:
        InputError: if the file is something else.
    """
    if not Path(path).exists():
        return []
    try:
        return list(json.loads(Path(path).read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no record of runs ({error!r}); move it away.") from error


def check_preparation(values: Mapping[str, Any], name: str | Path, record: str | Path, cure: str) -> None:
    """Refuse values that prepare images or name classes otherwise than the training of the weights did.

    Args:
        values: of a configuration, by their names; expressions, which have the value of their configuration, are let
            pass.
        name: of the configuration, for errors.
        record: ``run.json`` of the training; where there is none, nothing is refused.
        cure: what to do, the end of the error.

    Raises:
        InputError: names the value and the one of the training.
    """
    starts = read_starts(record)
    trained = (starts[-1].get("config") or {}) if starts else {}
    for key in PREPARATION:
        both = [values.get(key, "$"), trained.get(key, "$")]
        given = [None if v == "$None" else _as_json(v) for v in both if v == "$None" or not str(v).startswith("$")]
        if key.endswith("reader"):  # whose arguments are no words of a user
            given = [v["_target_"] if isinstance(v, dict) and "_target_" in v else v for v in given]
        if len(given) == 2 and given[0] != given[1]:
            raise InputError(
                f"{name}: {key} is {given[0]!r} where it was {given[1]!r} in the training, by {record}; {cure}"
            )


def _as_json(value: Any) -> Any:
    """The value as a file has it: lists, no tuples."""
    return json.loads(json.dumps(value, default=str))
