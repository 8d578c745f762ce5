"""Signals by which schedulers announce the end of a run."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
Handlers = dict[int, Callable | int | None]


def take_signals(handler: Callable[[int, FrameType | None], None]) -> Handlers:
    """Let a handler hear the signals, but those that are ignored; who heard them before. Other threads hear none."""
    mine = threading.current_thread() is threading.main_thread()
    heard = [number for number in SIGNALS if mine and signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}  # nohup ignores SIGHUP, and means it


def give_signals_back(before: Handlers) -> None:
    """Give the signals back to whoever had them."""
    for number, handler in before.items():
        signal.signal(number, handler)
