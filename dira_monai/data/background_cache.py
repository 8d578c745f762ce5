"""A cache that threads fill while its items are in use already."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..utils.memory import trim_malloc


class BackgroundCache(Sequence):
    """What ``load`` makes of each index: threads go through all of them, from the first to the last.

    An item that no thread has begun is loaded by whoever asks for it, so that nobody waits for others before it. No
    item is loaded twice. The first error of any item is raised by whoever asks for an item next. A program that ends
    does not wait for the rest. A forked process, which has no threads, loads what was not there yet; to a new process
    all items go in a list.

    Attributes:
        error: the first one, if any.

    Args:
        load: called with an index, by several threads.
        count: of the items.
        workers: threads; None: one a processor.
    """

    def __init__(self, load: Callable[[int], Any], count: int, workers: int | None = None) -> None:
        self._load, self._missing, self._counting = load, count, threading.Lock()
        self.error: Exception | None = None
        self._process = os.getpid()
        self._items: list[Any] = [None] * count
        pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
        with self._counting:  # so that no item is there before its place is
            self._items[:] = [pool.submit(self._fill, index) for index in range(count)]
        pool.shutdown(wait=False)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        """The item of an index, once it is there."""
        if self.error is not None:
            raise self.error
        item = self._items[index]
        if isinstance(item, Future):
            if os.getpid() != self._process:
                return self._load(index)
            item = self._items[index] = self._fill(index) if item.cancel() else item.result()
        return item

    def __reduce__(self) -> tuple:
        return list, ([self[index] for index in range(len(self))],)

    def _fill(self, index: int) -> Any:
        if self.error is not None or not threading.main_thread().is_alive():
            raise self.error or RuntimeError("the program ends")
        try:
            item = self._load(index)
        except Exception as error:  # transforms raise whatever they like
            self.error = self.error or error
            raise
        with self._counting:
            self._items[index] = item
            self._missing -= 1
            complete = self._missing == 0
        if complete:
            trim_malloc()
        return item
