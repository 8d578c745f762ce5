"""The workers of a study, which find in its folder what is left to do. They start without torch and MONAI."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from ...utils.errors import InputError
from ...utils.optional_import import import_package
from ...utils.signals import SIGNALS, give_signals_back, take_signals
from .cell import read_cell, update_cell
from .grid import Cell

POLL = 2.0  # seconds between two looks at what others do
CELL = ("-m", f"{__package__}.cell")


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
    import torch  # here, since workers need none of it

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
