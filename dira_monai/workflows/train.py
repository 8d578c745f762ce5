"""Training in one call: the bundle for the data, the folder of the run, and the values of its configuration."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..apps.planning.data import PRETRAIN
from ..apps.planning.plan import plan
from ..bundle.config import read_config
from ..bundle.header import check_header, check_values
from ..bundle.options import check_options, check_words
from ..bundle.shipped import bundle_folders
from ..bundle.values import type_word
from ..bundle.workflow import run_workflow
from ..data.trained_on import find_run_list
from ..datalists.options import TASKS
from ..utils.errors import InputError
from ..utils.files import user_path
from ..weights.named import with_network
from .dims import choose_dims
from .run_folder import run_folder

NO_METHODS = {"train", "evaluate", "inference", "metadata", "multi_gpu_train"}  # among the files in configs
OWN_VALUES = {  # that follow from the arguments
    "bundle_root": "it is the bundle that suits the data",
    "dataset_dir": "it is the first argument",
    "output_dir": "name the folder of the run by --run",
    "ckpt_dir": "it is the folder models of the run, which --run names",
}
ARGUMENTS = ("method", "run", "dims", "hours")


def pretrain(
    data: str | Path,
    *,
    method: str | Path | Sequence[str | Path] | None = None,
    run: str | Path | None = None,
    dims: int | None = None,
    hours: float | None = 12.0,
    **values: Any,
) -> Path:
    """Pre-train on scans by the bundle ``dira_pretrain_2d`` or ``dira_pretrain_3d``; the folder of the run.

    The same as ``python -m monai.bundle run`` with these files, the planned values and those that are given.

    Args:
        data: folder of scans, datalist, or folder of the command prepare.
        method: overlays of the bundle by their names, such as simsiam or "gravis,skin", or configuration files of your
            own; by default DiRA.
        run: folder of the run; by default a new one below $DIRA_RUNS, else ~/dira-monai.
        dims: 2 or 3; by default what the data are.
        hours: that the training may last, for which the values that are not given are planned, see ``plan``, and kept
            in ``plan.json`` of the run; None: they are those of the bundle.
        values: of the configuration to replace, by their ids: ``batch_size=4``, ``**{"network_def#features": [...]}``.

    Raises:
        InputError: if there is no such value or method, the folder holds a run and ``resume`` is not set, or the data
            cannot be used.
    """
    bundle = _choose_bundle("dira_pretrain_{}d", data, dims, values)
    values = with_network(values, values.get("pretrained"), bundle.name)
    files = [bundle / "configs/train.json", *_find_overlays(bundle, method)]
    _check_values(files, values, ARGUMENTS)
    with run_folder("pretrain", data, run, bool(values.get("resume"))) as folder:
        next_step = f"fine-tune: dira-monai finetune LABELED --pretrained {type_word(folder)} --task segmentation"
        planned = _plan(files, data, PRETRAIN, folder, hours, values)
        _train(files, bundle, data, folder, planned | {"next_step": next_step} | values)
    return folder


def finetune(
    data: str | Path,
    *,
    task: str,
    pretrained: str | Path | None = None,
    run: str | Path | None = None,
    dims: int | None = None,
    hours: float | None = 12.0,
    **values: Any,
) -> Path:
    """Fine-tune on labeled scans by the bundle of the task, in 2D or 3D; the folder of the run.

    The same as ``python -m monai.bundle run`` with this file, the planned values and those that are given.

    Args:
        data: folder of images and labels, or labeled datalist.
        task: segmentation or classification.
        pretrained: folder of a pre-training run, a file of weights, or the name of weights that come with the package,
            which bring the values of their network; by default none. A line tells how many test images the
            pre-training has seen, where it has made its datalist; ``allow_overlap=False`` then stops.
        run: folder of the run; by default a new one below $DIRA_RUNS, else ~/dira-monai.
        dims: 2 or 3; by default what the data are.
        hours: that the training may last, for which the values that are not given are planned, see ``plan``, and kept
            in ``plan.json`` of the run; None: they are those of the bundle.
        values: of the configuration to replace, by their ids: ``class_names=["background", "liver"]``.

    Raises:
        InputError: if there is no such task or value, the folder holds a run and ``resume`` is not set, the weights do
            not fit, or the data cannot be used.
    """
    if task not in TASKS:
        raise InputError(f"task must be segmentation or classification, got {task!r}")
    bundle = _choose_bundle(f"dira_finetune_{task}_{{}}d", data, dims, values)
    values = with_network(values, pretrained, bundle.name)
    files = [bundle / "configs/train.json"]
    _check_values(files, values, (*ARGUMENTS[1:], "task", "pretrained"))
    with run_folder("finetune", data, run, bool(values.get("resume"))) as folder:
        word = type_word(folder)
        next_step = f"measure: dira-monai evaluate {word}; use: dira-monai infer {word} IMAGES"
        planned = _plan(files, data, task, folder, hours, values)
        _train(files, bundle, data, folder, planned | {"next_step": next_step} | _start(pretrained) | values)
    return folder


def training_files(
    dims: int, *, task: str | None = None, method: str | Path | Sequence[str | Path] | None = None
) -> list[Path]:
    """The configuration files of a pre-training, or of a fine-tuning for a task.

    Raises:
        InputError: if there is no such method.
    """
    bundle = bundle_folders()[f"dira_{f'finetune_{task}' if task else 'pretrain'}_{dims}d"]
    return [bundle / "configs/train.json", *_find_overlays(bundle, method)]


def check_training(
    dims: int,
    *,
    task: str | None = None,
    method: str | Path | Sequence[str | Path] | None = None,
    pretrained: str | None = None,
    **values: Any,
) -> None:
    """Refuse what ``pretrain``, or with a task ``finetune``, would refuse of these arguments, before there are data.

    Raises:
        InputError: as they do; also if the network cannot be built.
    """
    files = training_files(dims, task=task, method=method)
    _check_values(files, values, ())
    read_config(files, values, purpose="a training").build_network()


def _plan(
    files: Sequence[Path], data: str | Path, task: str, folder: Path, hours: float | None, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Planned values that are not given; of a run that goes on those of its start, if it had any."""
    kept = folder / "plan.json"
    if values.get("resume"):
        planned = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        return {name: value for name, value in planned.items() if name != "_desc_"}
    if hours is None:
        return {}
    bundle = ",".join(map(str, files))
    made = plan(data, task=task, hours=hours, device=values.get("device"), bundle=bundle, given=values, output=folder)
    made.write(kept)
    print(made.table())
    return made.values


def _start(pretrained: str | Path | None) -> dict[str, Any]:
    """The weights to start from; where they are those of a run, its images are compared with the test images."""
    if pretrained is None:
        return {"pretrained": None}
    path = user_path(pretrained)
    listed = find_run_list(path if path.is_file() else path / "models/model.pt")
    seen = {"pretraining_list": str(listed), "allow_overlap": True} if listed else {}
    return {"pretrained": str(path), **seen}


def _choose_bundle(name: str, data: str | Path, dims: int | None, values: Mapping[str, Any]) -> Path:
    """The folder of the bundle for the data, which are read where ``values`` can be used."""
    if "LOCAL_RANK" in os.environ:
        raise InputError("one process only; for several give torchrun -m monai.bundle run, with multi_gpu_train.json")
    if dims not in (None, 2, 3) or isinstance(dims, float):
        raise InputError(f"dims must be 2 or 3, got {dims!r}")
    check_words(values)
    check_values(values, dims or 0)
    return bundle_folders()[name.format(dims or choose_dims(data))]


def _find_overlays(bundle: Path, method: str | Path | Sequence[str | Path] | None) -> list[Path]:
    """The files of some methods: names of overlays, or files.

    Raises:
        InputError: if there is no such overlay or file; tells the names.
    """
    words = method.split(",") if isinstance(method, str) else [method] if isinstance(method, Path) else method or []
    known = {path.stem: path for path in sorted(bundle.glob("configs/*.json")) if path.stem not in NO_METHODS}
    overlays = []
    for word in map(str, words):
        overlay = known.get(word.strip(), Path(word.strip()))
        if not overlay.is_file():
            raise InputError(f"method {word} is neither a file nor one of {', '.join(known)} ({bundle.name})")
        overlays.append(overlay)
    return overlays


def _check_values(files: Sequence[Path], values: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Refuse values that are unknown, break a rule together, or are set by the function itself."""
    for name in OWN_VALUES.keys() & values.keys():
        raise InputError(f"--{name} cannot be given: {OWN_VALUES[name]}")
    check_options(values, files, arguments)
    check_header(ConfigParser.load_config_files([str(file) for file in files]) | dict(values))


def _train(files: Sequence[Path], bundle: Path, data: str | Path, folder: Path, values: Mapping[str, Any]) -> None:
    """Run the configuration."""
    places = {
        "bundle_root": str(bundle),
        "dataset_dir": str(user_path(data).absolute()),
        "output_dir": str(folder),
        "ckpt_dir": str(folder / "models"),
    }
    run_workflow(files, places | dict(values))
