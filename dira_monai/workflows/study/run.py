"""Running a study: cells by any number of workers, which find in its folder what is left to do."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout

from ...engines.preemption import SIGNALS, give_signals_back, take_signals
from ...utils.errors import InputError
from ...utils.files import write_json
from ...utils.optional_import import import_package
from ..dims import choose_dims
from ..train import check_training
from .cell import NAME, is_finished, read_cell, update_cell
from .grid import Cell, make_cells, read_study, task_source
from .lists import prepare_study
from .report import write_report

POLL = 2.0  # seconds between two looks at what others do
CELL = ("-m", f"{__package__}.cell")


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
    cells = make_cells(described, dims, {"tasks": {}, "pretrainings": {}})
    _check_cells(cells)
    home = Path(os.environ.get("DIRA_RUNS") or "~/dira-monai")
    folder = Path(output or home / f"study_{Path(source).stem}").expanduser().absolute()
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


class Worker:
    """Runs cells of a study, until none is left that could be run.

    Args:
        cells: of the study.
        folder: of the study.
        words: behind ``python`` and before the folder of a cell, what runs it.
    """

    def __init__(self, cells: Sequence[Cell], folder: Path, words: Sequence[str] = CELL) -> None:
        self.cells, self.folder, self.words = cells, folder, words
        self.study: int | None = None  # process of this machine without which the worker ends

    def checkpoint(self, tell: None = None) -> Any:
        """What submitit puts into the queue again where the time of a job is over: cells go on where they are."""
        submitit = import_package("submitit", "a study")
        return submitit.helpers.DelayedSubmission(self)

    def __call__(self, tell: Callable[[int], None] | None = None) -> None:
        """Run cells; ``tell`` is called with the number of running ones."""
        while True:
            states = {cell.name: read_cell(self.folder / cell.name) for cell in self.cells}
            todo = [c for c in self.cells if not states[c.name].get("finished") and not states[c.name].get("failed")]
            able = [c for c in todo if c.needs is None or states[c.needs].get("finished")]
            waits = any(c.needs and not states[c.needs].get("failed") for c in todo if c not in able)
            if not able and not waits:
                return
            if not any(self._try(cell, tell) for cell in able):
                self._check_study()
                time.sleep(POLL)

    def _check_study(self) -> None:
        """End with the study, however it ended: the signals and interrupts that it gets do not reach its workers."""
        if self.study is None:
            return
        try:
            os.kill(self.study, 0)
        except ProcessLookupError:
            sys.exit("the study has ended")

    def _try(self, cell: Cell, tell: Callable[[int], None] | None) -> bool:
        """Run a cell, unless another worker has it; the system gives it back when the worker dies, however it does."""
        path = self.folder / cell.name
        try:
            with FileLock(path / ".cell", timeout=0):
                return self._run(path, tell)
        except Timeout:
            return False

    def _run(self, path: Path, tell: Callable[[int], None] | None) -> bool:
        """Run a cell that is this worker's alone, unless another one has done so."""
        state = read_cell(path)
        if state.get("finished") or state.get("failed"):
            return False
        if tell:
            tell(1)
        start = time.perf_counter()
        code = run_process(path, self.words, self._check_study)
        if code - 128 in SIGNALS:  # the cell was told to end, has saved, and goes on at the next start
            sys.exit(code)
        seconds = read_cell(path).get("seconds", 0.0) + time.perf_counter() - start
        update_cell(path, seconds=round(seconds, 1))
        state = read_cell(path)
        if not state.get("finished") and not state.get("failed"):
            update_cell(path, failed=f"its process ended with status {code}; see {path / 'log.txt'}")
        return True


def run_process(path: Path, words: Sequence[str], check: Callable[[], None]) -> int:
    """Run a cell in a process of its own, whose output goes to ``log.txt`` of its folder; its exit status.

    The training saves where it is and ends when ``check``, which is called all the time, or an interrupt says so.
    """
    with open(path / "log.txt", "ab") as log:
        process = subprocess.Popen([sys.executable, *words, str(path)], stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(POLL)
                check()
        except BaseException:
            process.terminate()
            process.wait()
            raise


class Progress:
    """Prints how many cells are finished, and about how long the others take."""

    def __init__(self, cells: Sequence[Cell], folder: Path, workers: int) -> None:
        self.cells, self.folder, self.workers = cells, folder, workers
        self.told = ""

    def __call__(self, running: int) -> None:
        """Print a line, if it is another one than before."""
        seconds: dict[str, list[float]] = {}
        left: list[str] = []
        for cell in self.cells:
            state, kind = read_cell(self.folder / cell.name), cell.key.task if cell.key else "pretrain"
            if state.get("finished"):
                seconds.setdefault(kind, []).append(state.get("seconds", 0.0))
            elif not state.get("failed"):
                left.append(kind)
        every = list(itertools.chain(*seconds.values()))
        line = f"{len(every)} of {len(self.cells)} cells finished, {running} running"
        if every and left:
            hours = sum(median(seconds.get(kind, every)) for kind in left) / self.workers / 3600
            line += f", about {hours:.1f} h left" if hours >= 0.1 else f", about {60 * hours:.1f} min left"
        if line != self.told:
            print(line, flush=True)
            self.told = line


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let what announces the end of a job end the study as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = take_signals(stop)
    try:
        yield
    finally:
        give_signals_back(before)


@_stopped_by_signals()
def launch(worker: Worker, workers: int, cluster: str | None, job: dict[str, Any]) -> None:
    """Run what is left: in this process where there is one worker, else by so many equal ones that submitit starts.

    Raises:
        InputError: if there is no worker, or submitit is needed and missing.
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    progress = Progress(worker.cells, worker.folder, workers)
    if workers == 1 and cluster is None:
        worker(progress)
        progress(0)
        return
    submitit = import_package("submitit", "a study of several workers")
    worker.study = os.getpid() if cluster is None else None
    jobs = []
    try:
        for number in range(workers):
            jobs.append(_executor(submitit, worker.folder, cluster, job, number, workers).submit(worker))
        while running := sum(not submitted.done() for submitted in jobs):
            progress(running)
            time.sleep(POLL)
    except BaseException:
        for submitted in jobs:
            submitted.cancel()
        raise
    progress(0)


def _executor(submitit: Any, folder: Path, cluster: str | None, job: dict[str, Any], number: int, workers: int) -> Any:
    """What starts a worker; on this machine with a share of the cores, and one of the GPUs."""
    if cluster is not None:
        executor = submitit.AutoExecutor(folder / "workers", cluster=cluster)
        executor.update_parameters(**{"name": folder.name, "timeout_min": 24 * 60} | job)
        return executor
    executor = submitit.LocalExecutor(folder / "workers")
    gpus = torch.cuda.device_count()
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // workers)
    own = {
        "timeout_min": 525_600,
        "gpus_per_node": min(1, gpus),
        "visible_gpus": (number % gpus,) if gpus else (),
        "setup": [f"export OMP_NUM_THREADS={threads}"],
    }
    executor.update_parameters(**own | job)
    return executor
