"""Which ``dira_monai`` runs where a bundle brings its own."""

import re
import sys
from pathlib import Path

from ..utils.version import __version__
from .shipped import PACKAGE


def name_running_code(root: str | Path) -> None:
    """Print one line where the package that runs is other code than the one in the bundle's folder.

    MONAI puts a bundle's folder on Python's path behind its ``initialize``, so that a packed bundle which is started
    from another folder imports an installed package first.

    Args:
        root: the bundle's folder.
    """
    packed = Path(root).resolve() / PACKAGE.name
    code = _read_code(packed)
    if not code or packed == PACKAGE.resolve() or code == _read_code(PACKAGE):
        return
    version = re.search(rb'^__version__ = "(.+?)"', b"\n".join(code.values()), re.MULTILINE)
    found = version[1].decode() if version else "of unknown version"
    print(
        f"{PACKAGE.name} {__version__} in {PACKAGE.parent} runs, not the other code ({found}) that the bundle brings; "
        f"to run that: PYTHONPATH={packed.parent}",
        file=sys.stderr,
    )


def _read_code(package: Path) -> dict[str, bytes]:
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in sorted(package.rglob("*.py"))}
