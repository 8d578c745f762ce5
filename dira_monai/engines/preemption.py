"""Signals by which schedulers announce the end of a run: all processes learn of them between two steps."""

import atexit
import multiprocessing
import signal
from collections.abc import Callable
from functools import partial
from types import FrameType

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from ..utils.distributed import world_size
from ..utils.signals import SIGNALS, Handlers, give_signals_back, take_signals
from ..utils.watch import exchange_timeout


class Preemption:
    """What tells a run to end: a signal to any of its processes, which does nothing else while this listens.

    Slurm sends SIGTERM, or what ``--signal`` names, to every process of a step, and torchrun passes SIGTERM on, so that
    it comes twice. Workers of data loaders would die of it in the middle of a batch: see ``spare_workers``.

    Attributes:
        received: number of the signal that this process got; 0: none.
    """

    def __init__(self) -> None:
        self.received = 0
        self.before: Handlers = {}
        self.group: dist.ProcessGroup | None = None

    def listen(self) -> None:
        """Take over the signals; outside the main thread nobody can."""
        if world_size() > 1 and self.group is None:
            self.group = dist.new_group(backend="gloo", timeout=exchange_timeout())  # no GPU has to wait for an answer
        self.before = take_signals(self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def stop_listening(self) -> None:
        """Give the signals back to whoever had them."""
        give_signals_back(self.before)
        self.before = {}

    def agree(self, wish: bool = False) -> tuple[int, bool]:
        """The signal that any process got, and whether any has a wish of its own; the same in all processes."""
        if self.group is None:
            return self.received, wish
        answer = torch.tensor([self.received, int(wish)])
        dist.all_reduce(answer, dist.ReduceOp.MAX, group=self.group)
        return int(answer[0]), bool(answer[1])


def spare_workers(*loaders: DataLoader) -> None:
    """Let the workers that the loaders start from now on ignore the signals."""
    for loader in loaders:
        loader.worker_init_fn = partial(_start_deaf_worker, loader.worker_init_fn)
    atexit.register(_end_workers)


def _start_deaf_worker(start: Callable[[int], None] | None, worker: int) -> None:
    """Start a loader's worker, which then ignores the signals."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if start is not None:
        start(worker)


def _end_workers() -> None:
    """Kill the workers that are left, since multiprocessing would wait for ever for those that ignore SIGTERM."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
