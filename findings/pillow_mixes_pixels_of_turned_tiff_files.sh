#!/usr/bin/env bash
# Pillow mixes up the pixels of a TIFF without compression whose Orientation turns it by a quarter, if a path is given.
#
# Versions: Pillow 13.0.0, numpy 2.4.6.
# Pillow turns TIFF as their Orientation asks. Where the pixels are not compressed and the file is opened by its path, it
# maps them into memory with width and height already exchanged: rows of the wrong length, then turned once more, so the
# picture has another shape than it told before it was loaded. From an open file, or with any compression, it is right.
# Nothing is said. Orientation 5 to 8 are concerned, 1 to 4 are right. Photographs of slides and skin are such files.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet Pillow==13.0.0 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from PIL import Image

STORED = np.arange(15, dtype=np.uint8).reshape(3, 5)
SHOWN = {
    1: STORED, 2: STORED[:, ::-1], 3: STORED[::-1, ::-1], 4: STORED[::-1],
    5: STORED.T, 6: np.rot90(STORED, -1), 7: np.rot90(STORED, 2).T, 8: np.rot90(STORED),
}


def wrong(compression, by_path):
    """The orientations that are not as they are to be shown."""
    found = []
    for orientation, shown in SHOWN.items():
        Image.fromarray(STORED).save("a.tif", compression=compression, tiffinfo={274: orientation})
        with open("a.tif", "rb") as file:
            image = Image.open("a.tif" if by_path else file)
            told = image.size
            image.load()
            found += [] if np.array_equal(np.asarray(image), shown) else [orientation]
        if found and orientation == 6:
            print(f"{compression}, orientation 6: told {told}, loaded {image.size}, {np.asarray(image)[0]}")
    return found


cases = [("raw", True), ("raw", False), ("tiff_lzw", True)]
results = [wrong(*case) for case in cases]
print(dict(zip(cases, results)))
sys.exit(results != [[5, 6, 7, 8], [], []])
PY
echo "as described"
