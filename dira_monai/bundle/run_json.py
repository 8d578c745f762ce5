"""What a run was made of, so that a number can be traced to it: configuration, versions, commit and data."""

import json
from pathlib import Path
from typing import Any

from ..utils.errors import InputError


def read_starts(path: str | Path) -> list[dict[str, Any]]:
    """The starts in a ``run.json``, oldest first; none where there is no file.

    Raises:
        InputError: if the file is something else.
    """
    if not Path(path).exists():
        return []
    try:
        return list(json.loads(Path(path).read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no record of runs ({error!r}); move it away.") from error
