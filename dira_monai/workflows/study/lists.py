"""What the trainings of a study begin with: lists of images, fixed once, values for the data, and a check of leaks."""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...apps.planning.data import PRETRAIN, read_data
from ...apps.planning.plan import plan
from ...data.trained_on import find_run_list, tell_seen
from ...datalists.io import read_datalist, write_datalist
from ...datalists.patients import group_of
from ...datalists.splits import draw, present_classes
from ...images.find import map_files
from ...utils.errors import InputError
from ...utils.files import user_path, write_json
from ...weights.named import find_named
from ..train import training_files
from .grid import Cell, make_cells, task_source

NAME = "prepared.json"
Prepared = tuple[dict, Callable[[], dict[str, Any]]]  # what for, and what makes it


def prepare_study(study: Mapping[str, Any], dims: int, output: Path) -> dict[str, Any]:
    """Lists and values of tasks and pre-trainings; those that are there already stay.

    Returns:
        ``tasks`` and ``pretrainings`` by name, each with ``made_for`` and ``values``; ``unchecked``: initializations of
        which it is not known what they were trained on.

    Raises:
        InputError: if data or values cannot be used, the folder holds a study of others, or a pre-training sees test
            images or their patients.
    """
    path = output / NAME
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"tasks": {}, "pretrainings": {}}
    for task in study["tasks"]:
        _keep(kept["tasks"], task, _prepare_task, study, kept["tasks"], dims, output)
        write_json(path, kept, indent=1)
    for cell in make_cells(study, dims, kept | {"pretrainings": {}}):
        if cell.verb == "pretrain":
            _keep(kept["pretrainings"], cell.name, _prepare_pretraining, cell, study["hours"].get("pretrain"), output)
            write_json(path, kept, indent=1)
    kept["unchecked"] = _check_leaks(make_cells(study, dims, kept), output)
    write_json(path, kept, indent=1)
    return kept


def _keep(kept: dict[str, Any], name: str, prepare: Callable[..., Prepared], *arguments: Any) -> None:
    """Prepare what is not there yet; refuse what was prepared for something else.

    Args:
        kept: by name.
        name: of a task, or of the folder of a pre-training.
        prepare: gives what it would be made for, and a function that makes it.
        arguments: of ``prepare``, behind the name.
    """
    made_for, make = prepare(name, *arguments)
    made_for = json.loads(json.dumps(made_for))
    if name in kept and kept[name]["made_for"] != made_for:
        raise InputError(
            f"{name} was prepared here for {kept[name]['made_for']}, not {made_for}; give another --output"
        )
    if name not in kept:
        kept[name] = {"made_for": made_for, **make()}


def _plan(data: str, kind: str, hours: float | None, files: list[Path], given: Mapping[str, Any], to: Path) -> dict:
    """Values for the data: all that is planned where there are hours, else what the data ask for."""
    bundle = ",".join(map(str, files))
    if hours:
        device = given.get("device")
        return plan(data, task=kind, hours=hours, device=device, bundle=bundle, given=given, output=to).values
    choices = read_data(Path(data), kind, bundle, given, to).choices
    return {name: choice.value for name, choice in choices.items()}


def _prepare_task(task: str, study: Mapping[str, Any], kept: Mapping[str, Any], dims: int, output: Path) -> Prepared:
    """List, values and numbers of images of a task; of tasks that differ in their rare class alone, the list is one."""
    entry, source = study["tasks"][task], task_source(study, task)
    given, hours = study["finetune"] | entry.get("values", {}), study["hours"].get("finetune")
    common = {"data": source, "task": entry["task"], "values": given, "hours": hours}

    def make() -> dict[str, Any]:
        alike = (other for other in kept.values() if {**other["made_for"], "rare": None} == {**common, "rare": None})
        first = next(alike, None)
        path = Path(first["all"]) if first else output / "lists" / task / "datalist.json"
        files = training_files(dims, task=entry["task"])
        values = first["values"] if first else _plan(source, entry["task"], hours, files, given, path.parent)
        datalist, used = read_datalist(path), path
        if entry.get("rare"):
            used = output / "lists" / task / "rare.json"
            write_datalist(thin_class(datalist, **entry["rare"]), used)
            datalist = read_datalist(used)
        counts = {name: len(datalist[name]) for name in ("training", "validation", "test")}
        people = {name: len({group_of(e) for e in datalist[name]}) for name in counts}
        if not counts["test"]:
            raise InputError(f"task {task}: {source} has no test images; give a test_fraction above 0")
        return {"list": str(used), "all": str(path), "values": values, "images": counts, "patients": people}

    return common | {"rare": entry.get("rare")}, make


def _prepare_pretraining(name: str, cell: Cell, hours: float | None, output: Path) -> Prepared:
    given = {key: value for key, value in cell.arguments.items() if key not in ("dims", "method")}
    method = cell.arguments["method"]
    files = training_files(cell.arguments["dims"], method=method)
    made_for = {"data": cell.data, "values": given, "hours": hours, "method": method}
    return made_for, lambda: {"values": _plan(cell.data, PRETRAIN, hours, files, given, output / name)}


def _check_leaks(cells: list[Cell], output: Path) -> list[str]:
    """Refuse a pre-training that sees test images or their patients; the initializations that cannot be checked."""
    unchecked = set()
    for task, name, data, weights, needs in {
        (c.key.task, c.key.initialization, c.data, c.arguments["pretrained"], c.needs) for c in cells if c.key
    }:
        if weights is None or find_named(weights):  # the package's own have seen no scans
            continue
        found = user_path(weights)
        listed = (
            output / needs / "datalist.json"
            if needs
            else find_run_list(found / "models/x" if found.is_dir() else found)
        )
        if listed is None:
            unchecked.add(name)
            continue
        content = read_datalist(data)
        place = partial(os.path.join, content["dataset_dir"])
        images = [map_files(entry["image"], place) for entry in content["test"]]
        if line := tell_seen(images, listed):
            raise InputError(f"{name} for {task}: {line}; a study needs pre-training that knows none of them")
    return sorted(unchecked)


def thin_class(datalist: dict, ratio: float, name: str | None = None) -> dict:
    """The list with as many training images of a class as of all others, divided by a ratio.

    The others are as many at every ratio: no more than the class has. Whole patients are drawn, in an order that
    depends on no ratio, so that a smaller number is part of a larger one; validation and test stay.

    Args:
        datalist: of a classification.
        ratio: images of the others for each of the class, from 1.
        name: of the class that becomes rare; None: the last one.

    Raises:
        InputError: if there is no such class, or too few images of it.
    """
    name = datalist["class_names"][-1] if name is None else name
    if name not in datalist["class_names"] or not ratio >= 1:
        raise InputError(f"rare: expected a class of {datalist['class_names']} and a ratio from 1, got {name}, {ratio}")
    number = datalist["class_names"].index(name)
    groups: dict[str, list[dict]] = {}
    for entry in sorted(datalist["training"], key=lambda entry: draw(group_of(entry), 0, "rare")):
        groups.setdefault(group_of(entry), []).append(entry)
    sides: tuple[list[list[dict]], list[list[dict]]] = ([], [])
    for group in groups.values():
        sides[any(number in (present_classes(entry) or []) for entry in group)].append(group)
    most = min(sum(map(len, side)) for side in sides)
    kept = [*_first(sides[0], most), *_first(sides[1], most / ratio)]
    if round(most / ratio) < 1:
        raise InputError(f"rare: {most} images of {name} are too few for a ratio of {ratio}")
    chosen = {group_of(entry) for entry in kept}
    return datalist | {"training": [entry for entry in datalist["training"] if group_of(entry) in chosen]}


def _first(groups: list[list[dict]], count: float) -> list[dict]:
    """Entries of the first groups, as long as they are no more than ``count``, at least those of one."""
    kept: list[dict] = []
    for group in groups:
        if kept and len(kept) + len(group) > count:
            break
        kept += group
    return kept
