#!/usr/bin/env bash
# SimpleITK reads colors of 16 bits that are compressed by RLE with their bytes in other places.
#
# Versions: SimpleITK 2.5.7 (ITK 5.4, GDCM), pydicom 3.0.2, numpy 2.4.6.
# DICOM allows RGB of 16 bits in RLE Lossless: six segments, of red, green and blue the high byte and then the low one.
# SimpleITK takes the high bytes and the low bytes of other colors together: of full red (65535, 0, 0) it makes
# (0, 65280, 255). Gray of 16 bits and colors of 8 bits are right, and so is the same file without compression. Nothing
# is said. The file is that of pydicom's own package, whose README tells its colors; pydicom reads those.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import pydicom
import SimpleITK
from pydicom.data import get_testdata_file


def read(file):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))[0]


def is_right(name):
    """Whether SimpleITK reads a compressed file as pydicom does, and whether it does so once it is decompressed."""
    file = get_testdata_file(name)
    data = pydicom.dcmread(file)
    expected = data.pixel_array
    data.decompress()
    data.save_as("plain.dcm", enforce_file_format=True)
    packed, plain = read(file), read("plain.dcm")
    print(name, "row 5: pydicom", expected[5, 50], "SimpleITK", packed[5, 50], "of the decompressed file", plain[5, 50])
    return bool((packed == expected).all()), bool((plain == expected).all())


names = ("SC_rgb_rle.dcm", "MR_small_RLE.dcm", "SC_rgb_rle_16bit.dcm")
found = [is_right(name) for name in names]
red = read(get_testdata_file(names[2]))[5, 50]
sys.exit(found != [(True, True), (True, True), (False, True)] or not np.array_equal(red, [0, 65280, 255]))
PY
echo "as described"
