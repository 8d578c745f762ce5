#!/usr/bin/env bash
# Reading a first image by itk in one thread moves the working folder of all threads for seconds.
#
# Versions: itk 5.4.7, numpy 2.4.6.
# itk loads its parts on first use, about fifty for an image, and changes the working folder of the process to its own
# package folder meanwhile (LibraryLoader.setup of itk/support/base.py). Another thread that writes to a relative path at
# this time writes into site-packages/itk. After all parts are loaded nothing moves. Nothing is said.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet itk==5.4.7 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import os
import sys
from pathlib import Path
from threading import Thread

import itk

Path("a.mha").write_bytes(
    b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n" + bytes(128)
)
home = Path.cwd()


def folders_while_reading():
    reading, seen = Thread(target=itk.imread, args=(str(home / "a.mha"),)), set()
    reading.start()
    while reading.is_alive():
        seen.add(Path(os.getcwd()))
        reading.join(0.001)
    return sorted(folder.name for folder in seen - {home})


first, second = folders_while_reading(), folders_while_reading()
print("other working folders during the first reading:", first, "during the second:", second)
sys.exit((first, second) != (["itk"], []))
PY
echo "as described"
