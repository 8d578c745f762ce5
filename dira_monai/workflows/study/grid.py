"""What a study is: its JSON file, and the trainings that follow from it."""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...datalists.options import TASKS
from ...utils.errors import InputError
from ...utils.files import user_path
from ...utils.rules import NOT_NOTHING, is_whole, suggest
from ...weights.named import with_network

READY = Path(__file__).parent / "ready"
NAME = re.compile(r"[\w.-]+")  # of what becomes a folder
DEFAULTS: dict[str, Any] = {
    "_desc_": "",
    "dims": None,
    "unlabeled": None,
    "labeled": None,
    "hours": {},
    "pretrain": {},
    "finetune": {},
    "initializations": {},
    "tasks": {},
    "label_fractions": [1.0],
    "subsets": 1,
    "seeds": 1,
    "tuning": [{}],
    "keep_weights": False,
}
START_KEYS = ("_desc_", "weights", "data", "method", "values", "parts")
TASK_KEYS = ("_desc_", "task", "data", "values", "pretrain", "rare", "label_fractions")
QUIET = {"tensorboard": False, "keep_checkpoints": 1}  # of hundreds of trainings


def _is_path(value: Any) -> bool:
    return value is None or (isinstance(value, str) and bool(value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "dims": ("2, 3 or null", lambda v: v in (None, 2, 3) and type(v) is not float),
    "unlabeled": ("a folder or a list, or null", _is_path),
    "labeled": ("a folder or a list, or null", _is_path),
    "hours": (
        "an object with pretrain, finetune or both, or null",
        lambda v: v is None or (_is_object(v) and v.keys() <= {"pretrain", "finetune"}),
    ),
    "pretrain": ("an object of values", _is_object),
    "finetune": ("an object of values", _is_object),
    "initializations": ("an object with one or more entries", lambda v: _is_object(v) and bool(v)),
    "tasks": ("an object with one or more entries", lambda v: _is_object(v) and bool(v)),
    "label_fractions": (
        "a list of numbers above 0 and at most 1",
        lambda v: isinstance(v, list) and bool(v) and all(NOT_NOTHING.fits(share, 0) for share in v),
    ),
    "subsets": ("a whole number from 1", lambda v: is_whole(v, 1, float("inf"))),
    "seeds": ("a whole number from 1", lambda v: is_whole(v, 1, float("inf"))),
    "tuning": (
        "a list of objects of values",
        lambda v: isinstance(v, list) and bool(v) and all(map(_is_object, v)),
    ),
    "keep_weights": ("true or false", lambda v: type(v) is bool),
}


class Key(NamedTuple):
    """The place of a fine-tuning in the grid."""

    task: str
    initialization: str
    fraction: float
    subset: int
    seed: int
    tuning: int


class Cell(NamedTuple):
    """A training of a study."""

    name: str  # of its folder, below that of the study
    verb: str  # pretrain or finetune
    data: str  # folder or list
    arguments: dict[str, Any]  # of ``pretrain`` or ``finetune``; ``pretrained`` may lie below the folder of the study
    needs: str | None = None  # name of the pre-training that it starts from; None: of none in this study
    key: Key | None = None  # of a fine-tuning


def ready_studies() -> dict[str, Path]:
    """The files of the studies that come with the package, by their names."""
    return {path.stem: path for path in sorted(READY.glob("*.json"))}


def read_study(source: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The description in a JSON file, checked and complete; paths are absolute.

    Args:
        source: the file, or the name of a ready study.
        given: entries that take the place of those of the file; objects are put over them.

    Raises:
        InputError: if there is no such file, or an entry is unknown or does not fit.
    """
    path = ready_studies().get(str(source), user_path(source))
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{source}: neither a JSON file ({error}) nor one of the studies {', '.join(ready_studies())}"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold one object, got {type(content).__name__}")
    _check_names(f"{path}: ", {**content, **given}, DEFAULTS)
    both = [name for name in given if _is_object(given[name]) and _is_object(content.get(name))]
    merged = {name: content[name] | given[name] for name in both}
    study = DEFAULTS | content | dict(given) | merged
    _check(study, str(path))
    study["hours"] = study["hours"] or {}
    for name in ("unlabeled", "labeled"):
        study[name] = study[name] and str(user_path(study[name]).absolute())
    return study


def _check_names(place: str, given: Mapping[str, Any], known: Sequence[str] | Mapping[str, Any]) -> None:
    for name in given:
        if name not in known:
            hint = suggest(name, known).replace("--", "") or f"known are {', '.join(known)}"
            raise InputError(f"{place}{name} is no entry of a study; {hint}")


def _check(study: Mapping[str, Any], path: str) -> None:
    """Refuse entries that are of another kind, or name nothing that there is."""
    for name, (told, fits) in RULES.items():
        if not fits(study[name]):
            raise InputError(f"{path}: {name} must be {told}, got {study[name]!r}")
    for group, keys in (("initializations", START_KEYS), ("tasks", TASK_KEYS)):
        for name, content in study[group].items():
            if not NAME.fullmatch(name):
                raise InputError(f"{path}: {group} {name!r} becomes a folder; use letters, digits, _ . - only")
            _check_names(f"{path}: {group} {name}: ", content or {}, keys)
    _check_tasks(study["tasks"], path)


def _check_tasks(tasks: Mapping[str, Any], path: str) -> None:
    """Refuse tasks that are none, and shares of labels that cannot be."""
    for name, task in tasks.items():
        if (task or {}).get("task") not in TASKS:
            raise InputError(f"{path}: tasks {name}: task must be {' or '.join(TASKS)}, got {(task or {}).get('task')}")
        told, fits = RULES["label_fractions"]
        if not fits(shares := task.get("label_fractions", [1.0])):
            raise InputError(f"{path}: tasks {name}: label_fractions must be {told}, got {shares!r}")


def fractions_of(study: Mapping[str, Any], task: str) -> list[float]:
    """Shares of the labels that a task is trained with."""
    return study["tasks"][task].get("label_fractions", study["label_fractions"])


def task_source(study: Mapping[str, Any], task: str) -> str:
    """The data of a task.

    Raises:
        InputError: if there are none.
    """
    source = study["tasks"][task].get("data") or study["labeled"]
    if not source:
        raise InputError(f"task {task} has no data; give --labeled FOLDER, or data in the study's file")
    return str(user_path(source).absolute())


def with_networks(study: Mapping[str, Any], dims: int) -> dict[str, Any]:
    """The study with the network of the package's weights, where an initialization names them, for all initializations.

    Raises:
        InputError: if the weights are not for one of its tasks.
    """
    tasks = dict(study["tasks"])
    for name, task in tasks.items():
        own = task.get("values", {})
        built = study["finetune"] | own
        for start in study["initializations"].values():
            built = with_network(built, (start or {}).get("weights"), f"dira_finetune_{task['task']}_{dims}d")
        network = {key: value for key, value in built.items() if key not in study["finetune"]}
        tasks[name] = task | {"values": network | own}
    return dict(study) | {"tasks": tasks}


def make_cells(study: Mapping[str, Any], dims: int, prepared: Mapping[str, Any]) -> list[Cell]:
    """All trainings of a study: pre-trainings, then fine-tunings, those of the first seed first.

    With all labels there is one subset. Every initialization has the same values in fine-tuning.

    Args:
        study: complete description.
        dims: 2 or 3.
        prepared: by task, ``list``, ``values`` that its data ask for, and ``all``, the list before a class was made
            rare, for pre-training; by pre-training, its ``values``.
    """
    pretrainings: list[Cell] = []
    needs: dict[tuple[str, str], str] = {}
    for task, (name, start) in itertools.product(study["tasks"], study["initializations"].items()):
        if start is None or start.get("weights"):
            continue
        cell = _pretraining(study, name, task, dims, prepared)
        same = next((c for c in pretrainings if (c.data, c.arguments) == (cell.data, cell.arguments)), None)
        needs[task, name] = (same or cell).name
        pretrainings += [] if same else [cell]
    keys = [
        Key(task, start, fraction, subset, seed, tuning)
        for seed, subset, task in itertools.product(range(study["seeds"]), range(study["subsets"]), study["tasks"])
        for fraction, start, tuning in itertools.product(
            fractions_of(study, task), study["initializations"], range(len(study["tuning"]))
        )
        if fraction < 1 or subset == 0
    ]
    return pretrainings + [_finetuning(study, key, needs.get(key[:2]), dims, prepared) for key in keys]


def _pretraining(study: Mapping[str, Any], name: str, task: str, dims: int, prepared: Mapping[str, Any]) -> Cell:
    """The pre-training of an initialization for a task; equal ones of several tasks are one."""
    start, own = study["initializations"][name], study["tasks"][task].get("pretrain", {})
    source = start.get("data") or study["unlabeled"]
    data = str(user_path(source).absolute()) if source else prepared["tasks"].get(task, {}).get("all", task)
    values = study["pretrain"] | start.get("values", {}) | own
    folder = f"pretrainings/{name}" + (f"-{task}" if own or not source else "")
    planned = prepared["pretrainings"].get(folder, {}).get("values", {})
    return Cell(folder, "pretrain", data, {"method": start.get("method"), "dims": dims, **QUIET, **planned, **values})


def _finetuning(study: Mapping[str, Any], key: Key, needs: str | None, dims: int, prepared: Mapping[str, Any]) -> Cell:
    start, task = study["initializations"][key.initialization] or {}, study["tasks"][key.task]
    found = prepared["tasks"].get(key.task, {"list": key.task, "values": {}})
    weights = start.get("weights")
    if needs:
        weights = f"{needs}/models/encoder.pt" if start.get("parts") == "encoder" else needs
    place = {"label_fraction": key.fraction, "label_seed": key.subset, "seed": key.seed, "pretrained": weights}
    values = found["values"] | study["finetune"] | task.get("values", {}) | study["tuning"][key.tuning]
    tuning = f"/tuning_{key.tuning}" if len(study["tuning"]) > 1 else ""
    folder = (
        f"cells/{key.task}/{key.initialization}/labels_{key.fraction:g}/subset_{key.subset}/seed_{key.seed}{tuning}"
    )
    arguments = {"task": task["task"], "dims": dims, "allow_overlap": False, **QUIET, **values, **place}
    return Cell(folder, "finetune", found["list"], arguments, needs, key)
