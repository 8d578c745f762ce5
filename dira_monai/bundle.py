"""Where a bundle stands on disk."""

import ast
import sys
from pathlib import Path


def bundle_root() -> str:
    """Folder of the bundle that runs: that of ``--config_file`` on the command line, else the working directory.

    MONAI does not tell a config where it lies; with the working directory alone, a run from elsewhere would write its
    weights there, and two bundles would overwrite each other's.
    """
    words = [part for word in sys.argv for part in word.split("=", 1)]
    if "--config_file" not in words[:-1]:
        return "."
    given = words[words.index("--config_file") + 1]
    files = ast.literal_eval(given) if given.startswith(("[", "(")) else [given]
    folder = Path(files[0]).resolve().parent
    return str(folder.parent if folder.name == "configs" else folder)
