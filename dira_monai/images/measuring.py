"""The facts of many images, kept on the disk meanwhile, so that a stopped process need not begin anew."""

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..utils.errors import InputError
from ..utils.parallel import parallel_map
from ..utils.version import __version__

PERIOD = 5.0  # seconds of work that a stopped process loses
IN_PARTS = (".mhd", ".nhdr", ".hdr", ".img", ".img.gz")  # headers and voxels in files of their own
Item = TypeVar("Item")


def measure_each(
    measure: Callable[[Item, str | Path], dict],
    items: Sequence[Item],
    directory: str | Path,
    strict: bool = False,
    workers: int | None = None,
) -> list[dict | InputError]:
    """What ``measure`` finds of each item, or the error that it raises; with a progress bar on a terminal.

    Args:
        measure: takes an item and the folder, and gives what JSON can hold.
        items: images, relative to ``directory``, or what holds several of them.
        directory: the folder of the images; errors name files relative to it.
        strict: raise the first ``InputError``.
        workers: threads (the decoders release Python's lock), by default one a processor, at most 8.
    """
    kept = KEPT.get()

    def attempt(item: Item) -> dict | InputError:
        try:
            return kept.find(measure, item, directory) if kept else measure(item, directory)
        except InputError as error:
            error.args = (str(error).replace(f"{directory}{os.sep}", ""),)
            if strict:
                raise
            return error

    results = []
    for result in parallel_map(attempt, items, "checking images", workers or min(os.cpu_count() or 1, 8)):
        results.append(result)
        if kept and time.monotonic() - kept.written >= PERIOD:
            kept.write()
    return results


class KeptFacts:
    """Facts of files as they are now, by what measured them; those of an earlier process are read, not found anew.

    Attributes:
        path: a line of JSON for each item; written first when some ``PERIOD`` has passed.
        before: number of items in the file at the start.
        written: when, in seconds of the monotonic clock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = dict(_read_lines(path))
        self.before = len(self._known)
        self._new = deque[str]()  # threads append
        self.written = time.monotonic()

    def find(self, measure: Callable[[Item, str | Path], dict], item: Item, directory: str | Path) -> dict:
        """What ``measure`` gives of the item, or gave while its files had the same size and date; errors are not kept.

        Raises:
            InputError: as ``measure`` does.
        """
        key = _key(measure, item, directory)
        if key in self._known:
            return self._known[key]
        found = measure(item, directory)
        if key is not None:
            self._new.append(json.dumps([key, found]))
        return found

    def write(self) -> None:
        """Add to the file what has been found since.

        Raises:
            InputError: if it cannot be written.
        """
        lines = [self._new.popleft() for _ in range(len(self._new))]
        self.written = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(f"\n{line}" for line in lines))  # first an end to half a line of a killed process
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error}); name another folder.") from error


KEPT: ContextVar[KeptFacts | None] = ContextVar("KEPT", default=None)


@contextmanager
def keep_facts(path: str | Path) -> Iterator[None]:
    """Within the block ``measure_each`` keeps what it finds in a file beside ``path``; a block that ends removes it.

    An error or signal leaves the file, if the block has taken some ``PERIOD``; the next block goes on from there and
    says so.

    Args:
        path: of the list that is made of the facts.

    Raises:
        InputError: if the file cannot be written.
    """
    path = Path(os.path.abspath(path))
    kept = KeptFacts(path.with_name(f".{path.name}.facts"))
    if kept.before:
        print(
            f"{path}: of {kept.before} images that were checked before a stop, "
            f"those that stay the same are not read again"
        )
    token = KEPT.set(kept)
    try:
        yield
    except BaseException:
        if kept.path.exists():
            with suppress(InputError):  # what ended the block counts
                kept.write()
        raise
    finally:
        KEPT.reset(token)
    kept.path.unlink(missing_ok=True)


def _read_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """Those of a file that may be missing; a killed process may have left half a line."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with suppress(ValueError, TypeError):
            key, facts = json.loads(line)
            yield str(key), dict(facts)


def _key(measure: Callable, item: Any, directory: str | Path) -> str | None:
    """Changes with the function, what it is given, and name, size and date of each file of the item.

    None where further files count, of a folder or beside one of ``IN_PARTS``: such an item is not kept.
    """
    function, given = (measure.func, measure.keywords) if isinstance(measure, partial) else (measure, {})
    paths = [os.path.join(directory, name) for name in _names(item)]
    if any(path.lower().endswith(IN_PARTS) or not os.path.isfile(path) for path in paths):
        return None
    states = [(state.st_size, state.st_mtime_ns) for state in map(os.stat, paths)]
    content = repr((__version__, function.__module__, function.__qualname__, given, item, paths, states))
    return hashlib.blake2b(content.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _names(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    else:
        for part in item:
            yield from _names(part)
