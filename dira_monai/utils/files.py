"""Files that are written whole or not at all, and their digests."""

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import InputError


def user_path(path: str | Path) -> Path:
    """The path with ``~`` and ``~user`` replaced; a folder that is called ``~x`` where no such user is known stays it.

    ``Path.expanduser`` raises a RuntimeError there.
    """
    return Path(os.path.expanduser(path))


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of ``path`` when the block ends.

    A reader sees the old file or the whole new one. Missing folders are made. The content lies under a temporary name
    in the same folder until it is on the disk.

    Raises:
        InputError: if it cannot be written (disk full, no permission); the file that was there is kept.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a short write as RuntimeError
        with suppress(OSError):  # none was made, or its folder is none
            temporary.unlink()
        kept = "the file of before is kept" if path.exists() else "nothing was written"
        raise InputError(f"{path}: cannot be written ({error}); {kept}") from error
    except BaseException:  # whatever else ends the block, an interrupt too
        with suppress(OSError):
            temporary.unlink()
        raise


def check_writable(path: str | Path) -> None:
    """Nothing, where a folder is there and takes files, or can be made; nothing stays written.

    Raises:
        InputError: names the folder and the error of the system.
    """
    folder = user_path(path).absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}: {there}); name another folder.") from error


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a text or bytes, whole or not at all."""
    with atomic_write(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, content: object, indent: int | None = None) -> None:
    """Write content as JSON, whole or not at all; what JSON does not know becomes its text."""
    write_whole(path, json.dumps(content, indent=indent, default=str) + "\n")


def write_csv(path: str | Path, rows: Iterable[Iterable[object]], lineterminator: str = "\r\n") -> None:
    """Write rows as CSV, whole or not at all; None is an empty cell. Names of files that are no UTF-8 keep their bytes.

    Args:
        path: of the file.
        rows: the head first.
        lineterminator: end of each line; CSV has both characters (RFC 4180).
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=lineterminator).writerows(rows)
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))


def sha256(path: str | Path) -> str:
    """Digest of a file, as ``sha256sum`` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
