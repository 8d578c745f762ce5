"""Processes that train together: each learns within minutes that another one, or what started it, is no more."""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch.distributed as dist

from .errors import InputError, find_input_error
from .host_sums import connect_host, disconnect_host

PERIOD = 5.0  # seconds between two signs of life
LAST_MOMENTS = 45.0  # seconds in which a process whose torchrun is gone may save
ENDED, WAITS = "ended", " waits"  # in signs of life
BROKEN = ("gloo", "NCCL", "by peer", "Timed out waiting")  # in errors of exchanges that another process did not answer


class Watch:
    """A thread that tells the other processes that this one lives, and ends it where one of them or torchrun does not.

    Signs of life lie in the store by which the processes have found each other. One that shows none for the limit is
    named with its host and its last step. A main thread that hangs gives signs of life; the exchanges of the others
    time out then, and ``explain`` names the process that does not wait in one. Every process reads the signs of all
    others: for some thousands of processes that is too much.
    """

    def __init__(self, minutes: float) -> None:
        self.place = "before its first step"  # what this process has done last, in words
        self.limit = 60 * minutes  # seconds
        self.period = min(PERIOD, self.limit / 4)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.host, self.port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = dist.TCPStore(  # a connection of its own, since one that waits keeps all others waiting
            self.host, self.port, is_master=False, wait_for_workers=False
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.keys = [f"dira_monai/{attempt}/{rank}" for rank in range(self.world)]
        self.beats = self.meetings = 0
        self.waits = False  # whether an exchange of this process has failed
        self.parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self.seen: dict[int, tuple[str, float]] = {}  # the newest sign of life of each process, and since when
        self.answered = time.monotonic()  # when the store has answered last
        self.over = threading.Event()

    def start(self) -> None:
        """Watch from now on."""
        self._beat()
        self.store.wait(self.keys)
        self._look()
        for work in (self._exchange, self._guard):
            threading.Thread(target=work, daemon=True, name="watch").start()

    def end(self) -> None:
        """Tell the others that this process ends as it should."""
        self.over.set()
        with suppress(RuntimeError):  # the store may have ended already
            self.store.set(self.keys[self.rank], ENDED)

    def meet(self) -> None:
        """Wait for all processes, however long that takes: each may have files to read."""
        self.meetings += 1
        here = [f"{key}/{self.meetings}" for key in self.keys]
        self.store.set(here[self.rank], "here")
        pause = 0.001
        while not self.store.check(here):
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def explain(self, error: BaseException) -> str | None:
        """The sentence for an exchange that failed since another process did not answer; None: it is another error."""
        if find_input_error(error) is not None or not _is_broken_exchange(error):
            return None
        for number in (signal.SIGTERM, signal.SIGINT):  # torchrun ends this process a little later
            signal.signal(number, signal.SIG_IGN)
        self.waits, before = True, dict(self.seen)
        time.sleep(3 * self.period)
        if time.monotonic() - self.answered > 2 * self.period:
            return self._name_store()
        others = {rank: sign for rank, (sign, _) in self.seen.items() if rank != self.rank}
        silent = [rank for rank, sign in others.items() if sign == before[rank][0]]
        return self._name(silent or [rank for rank, sign in others.items() if WAITS not in sign])

    def _exchange(self) -> None:
        """Show signs of life and read those of the others; a store that is frozen keeps this waiting for ever."""
        with suppress(RuntimeError):  # the store has ended
            while not self.over.wait(self.period):
                self._beat()
                silent = self._look()
                self.answered = time.monotonic()
                if silent:
                    first = min(rank for rank in range(self.world) if rank not in silent)
                    self._die(self._name(silent) if self.rank == first else "")

    def _guard(self) -> None:
        """End the process where torchrun or the store is gone."""
        while not self.over.wait(self.period):
            if self.parent is not None and os.getppid() != self.parent:
                self._end_orphan()
            if time.monotonic() - self.answered > 1.5 * self.limit:
                self._die(self._name_store())

    def _beat(self) -> None:
        self.beats += 1
        sign = f"{self.beats}{WAITS * self.waits}|host {socket.gethostname()}, process {os.getpid()}; {self.place}"
        self.store.set(self.keys[self.rank], sign)

    def _look(self) -> list[int]:
        """Read the signs of all processes; those that are silent for longer than the limit."""
        now = time.monotonic()
        for rank, sign in enumerate(map(bytes.decode, self.store.multi_get(self.keys))):
            if self.seen.get(rank, ("", 0))[0] != sign:
                self.seen[rank] = sign, now
        lasting = [rank for rank, (_, since) in self.seen.items() if now - since > self.limit]
        return [rank for rank in lasting if rank != self.rank and self.seen[rank][0] != ENDED]

    def _name(self, silent: list[int]) -> str:
        told = [f"{rank} ({self.seen[rank][0].partition('|')[2]})" for rank in silent[:3]]
        more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
        return (
            f"of {self.world} processes {', '.join(told) or 'one'}{more} ended or stopped answering; training stopped, "
            "the checkpoints are kept; --resume True goes on."
        )

    def _name_store(self) -> str:
        """The store lies in process 0, or in the torchrun of its host."""
        if self.parent is None:
            return self._name([0])
        return (
            f"the torchrun at {self.host}, port {self.port}, which the processes have met by, ended or stopped "
            "answering; training stopped, the checkpoints are kept; --resume True goes on."
        )

    def _end_orphan(self) -> None:
        """Let the run save, as at the end of a job, and end the process if it does not end by itself."""
        print("the torchrun that started this process has ended, and so does the training", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_MOMENTS)
        os._exit(128 + signal.SIGTERM)

    def _die(self, sentence: str) -> None:
        if sentence:
            print(f"error: {sentence}", file=sys.stderr, flush=True)
        os._exit(1)


def _is_broken_exchange(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, RuntimeError) and (
            isinstance(error, dist.DistError) or any(word in str(error) for word in BROKEN)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


_watches: list[Watch] = []  # the one of this process, once it has joined others


def join_processes(backend: str, minutes: float = 10.0) -> None:
    """Find the processes that torchrun has started, and watch them; does nothing where they have met already.

    A process that has ended or shows no sign of life for so many minutes is named in one sentence by the first of the
    others, which all end; and all processes of a torchrun that is no more end within a minute, if possible behind a
    saved step.

    Args:
        backend: gloo or nccl.
        minutes: above 0; also the time after which an exchange fails that a process does not take part in.

    Raises:
        InputError: if ``minutes`` is no number above 0.
    """
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes > 0:
        raise InputError(f"--timeout_minutes must be a number above 0, got {minutes!r}.")
    if dist.is_initialized():
        return
    patience = timedelta(minutes=minutes if backend == "gloo" else 1.5 * minutes)  # nccl would end without a word
    dist.init_process_group(backend, timeout=patience)
    watch = Watch(minutes)
    _watches.append(watch)
    watch.start()
    hook = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        sentence = watch.explain(error)
        return print(f"error: {sentence}", file=sys.stderr) if sentence else hook(kind, error, trace)

    sys.excepthook = tell
    if backend == "gloo":
        connect_host(int(os.environ.get("LOCAL_WORLD_SIZE", "0")), patience.total_seconds())


def leave_processes() -> None:
    """End the work of several processes, if there are any."""
    disconnect_host()
    while _watches:
        _watches.pop().end()
    if dist.is_initialized():
        dist.destroy_process_group()


def note_place(place: str) -> None:
    """Keep what this process has done last, for the sentence that names it where it stops answering."""
    for watch in _watches:
        watch.place = place


def meet_processes() -> None:
    """Wait for all processes, longer than an exchange would; one process alone does not wait."""
    for watch in _watches:
        watch.meet()


def exchange_timeout() -> timedelta | None:
    """The time after which an exchange fails that a process does not take part in; None: that of torch."""
    return timedelta(seconds=_watches[0].limit) if _watches else None
