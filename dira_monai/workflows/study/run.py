"""Running a study: its cells by any number of workers, then its report."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils.errors import InputError
from ...utils.files import user_path, write_json
from ..dims import choose_dims
from ..train import check_training
from .cell import NAME, is_finished, read_cell
from .grid import Cell, make_cells, read_study, task_source, with_networks
from .lists import prepare_study
from .report import write_report
from .workers import Worker, launch


def study(
    source: str | Path,
    *,
    output: str | Path | None = None,
    workers: int = 1,
    cluster: str | None = None,
    job: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    **entries: Any,
) -> Path:
    """Train and test every cell of a study, and write its report; the folder of the study.

    A cell is a run of ``pretrain``, or of ``finetune`` and ``evaluate``, in a folder and a process of its own. Finished
    cells never run again; a cell in which the study was stopped goes on from its last checkpoint. What fails is told at
    the end, and the other cells are not stopped; the next start tries it again.

    Args:
        source: JSON file of a study, or the name of one that comes with the package.
        output: folder of the study, in which it goes on where it was stopped; by default that of its name below
            $DIRA_RUNS, else ~/dira-monai.
        workers: cells that run at a time; on one machine the GPUs are shared out among them. More than one needs
            submitit.
        cluster: slurm: the workers are jobs of Slurm; None: processes of this machine.
        job: what submitit is told of the jobs, such as "{'slurm_partition': 'gpu', 'gpus_per_node': 1}".
        dry_run: list the cells and check the values of each, without data.
        entries: of the file, to take their place; objects are put over those of the file.

    Raises:
        InputError: if the study, its values or data cannot be used, or a cell failed.
    """
    described = read_study(source, entries)
    dims = described["dims"] or choose_dims(task_source(described, next(iter(described["tasks"]))))
    described = with_networks(described, dims)
    cells = make_cells(described, dims, {"tasks": {}, "pretrainings": {}})
    _check_cells(cells)
    home = Path(os.environ.get("DIRA_RUNS") or "~/dira-monai")
    folder = user_path(output or home / f"study_{Path(source).stem}").absolute()
    if dry_run:
        print("\n".join([*(cell.name for cell in cells), f"{len(cells)} cells, all values are known; nothing was run"]))
        return folder
    prepared = prepare_study(described, dims, folder)
    cells = make_cells(described, dims, prepared)
    _begin(cells, folder, described["keep_weights"])
    print(f"study: {folder}")
    launch(Worker(cells, folder), workers, cluster, dict(job or {}))
    write_report(described, cells, prepared, folder)
    print(f"report: {folder / 'report.html'}")
    left = [cell for cell in cells if not is_finished(folder / cell.name)]
    failed = [(cell, read_cell(folder / cell.name).get("failed")) for cell in left]
    if first := next(((cell, error) for cell, error in failed if error), None):
        raise InputError(f"{len(left)} of {len(cells)} cells are left, the first: {folder / first[0].name}: {first[1]}")
    if left:
        raise InputError(f"{len(left)} of {len(cells)} cells are left; {folder / 'workers'} says why workers ended")
    return folder


def _check_cells(cells: Sequence[Cell]) -> None:
    """Refuse values of trainings that differ in more than their place in the grid."""
    checked: list[dict[str, Any]] = []
    for cell in cells:
        arguments = cell.arguments | {"seed": 0, "label_seed": 0, "label_fraction": 1.0, "pretrained": None}
        arguments = arguments if cell.key else cell.arguments
        if arguments not in checked:
            checked.append(arguments)
            try:
                check_training(**arguments)
            except InputError as error:
                raise InputError(f"{cell.name}: {error}") from error


def _begin(cells: Sequence[Cell], folder: Path, keep_weights: bool) -> None:
    """Write what each cell is to do; refuse finished ones that did something else."""
    for cell in cells:
        path, known = folder / cell.name, read_cell(folder / cell.name)
        arguments = dict(cell.arguments)
        if cell.needs:
            arguments["pretrained"] = str(folder / arguments["pretrained"])
        wanted = {"verb": cell.verb, "data": cell.data, "arguments": arguments}
        if known and any(known[name] != value for name, value in wanted.items()):
            raise InputError(f"{path}: was begun with other values; delete it, or give another --output")
        write_json(path / NAME, known | wanted | {"keep_weights": keep_weights, "failed": None}, indent=1)
