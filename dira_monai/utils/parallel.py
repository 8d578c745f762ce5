"""A function of many items in threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], title: str, workers: int | None
) -> Iterator[Result]:
    """Results in the order of the items, with a progress bar on a terminal; the first error ends all.

    Args:
        function: of an item; threads call it.
        items: what it is called with.
        title: of the bar.
        workers: threads; None: one a processor, at most 4.
    """
    pool = ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 4))
    try:
        yield from tqdm(pool.map(function, items), title, len(items), leave=False, disable=None)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
