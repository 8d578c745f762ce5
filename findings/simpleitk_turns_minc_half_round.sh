#!/usr/bin/env bash
# SimpleITK reads a MINC file turned half round the z axis of the place where nibabel, and the format, have it.
#
# Versions: SimpleITK 2.5.7 (ITK 5.4), nibabel 5.4.2, h5py 3.16.0, numpy 2.4.6.
# World coordinates of MINC grow to the right and to the front (RAS), those of ITK to the left and to the back (LPS).
# SimpleITK takes the starts and direction cosines of the file as they are, without changing the signs, so what was on
# the right is on the left, and the front is the back. The voxels are equal. Nothing is said; an image and a label map
# both in MINC stay together, one in MINC and one in NIfTI part. The files are those that nibabel's package holds.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet SimpleITK==2.5.7 nibabel==5.4.2 h5py==3.16.0 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK

found = []
for name in ("minc2_1_scale.mnc", "small.mnc"):
    file = Path(nib.__file__).parent / "tests/data" / name
    ours, image = nib.load(file), SimpleITK.ReadImage(str(file))
    assert np.allclose(np.asarray(ours.dataobj), SimpleITK.GetArrayFromImage(image))  # both (z, y, x)
    first = (ours.affine @ [0, 0, 0, 1])[:3]
    other = np.array(image.GetOrigin()) * [-1, -1, 1]  # LPS to RAS
    last = tuple(n - 1 for n in ours.shape)
    end = (ours.affine @ [*last, 1])[:3]
    other_end = np.array(image.TransformIndexToPhysicalPoint(last[::-1])) * [-1, -1, 1]
    print(name, "first and last voxel in RAS: nibabel", first, end, "SimpleITK", other, other_end)
    found.append(np.allclose(other, first * [-1, -1, 1]) and np.allclose(other_end, end * [-1, -1, 1]))
sys.exit(not all(found))
PY
echo "as described"
