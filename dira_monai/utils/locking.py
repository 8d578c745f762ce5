"""One run at a time writes into a folder."""

import json
import logging
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import InputError

LOGGER = logging.getLogger(__name__)
NAME = ".running"  # locked while a run writes; OWNER says who does
OWNER = ".running.json"
HELD: dict[Path, FileLock] = {}


def lock_folder(folder: str | Path) -> None:
    """Make the folder, keep other processes from writing a run into it, and remove what killed ones left half written.

    The system gives the lock back when this process ends, however it does; a file system without locks is told.

    Raises:
        InputError: if another process holds the folder; names host, process and start.
    """
    folder = Path(folder).resolve()
    if folder in HELD:
        return
    lock = FileLock(folder / NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder}: another run writes here ({_owner(folder)}); wait for its end, or name another folder."
        ) from None
    except NotImplementedError:
        LOGGER.warning(f"{folder}: its file system has no locks, so nothing keeps a second run from writing here")
        return
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error}); name another folder.") from error
    HELD[folder] = lock
    owner = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (folder / OWNER).write_text(json.dumps(owner))
    for left in (*folder.glob(".*.[0-9]*.tmp"), *folder.glob("*/.*.[0-9]*.tmp")):  # see atomic_write
        left.unlink(missing_ok=True)


def release_folders() -> None:
    """Let others write into all folders that this process holds."""
    while HELD:
        folder, lock = HELD.popitem()
        with suppress(OSError):
            (folder / OWNER).unlink()
        lock.release()


def _owner(folder: Path) -> str:
    """Who holds a folder, as far as it is known."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / OWNER).read_text())
        return ", ".join(f"{name} {value}" for name, value in found.items())
    return "it has just begun"
