#!/usr/bin/env bash
# MONAI drops the rotation and the origin of a NIfTI whose sform is rounded to four decimals.
#
# Versions: monai 1.6.1, nibabel 5.4.2, numpy 2.4.6, torch 2.13.0 (CPU).
# A file places its voxels by the sform alone (sform_code 1, qform_code 0), as many scripts write it: 0.4883 mm in the
# affine, 0.48828125 mm in pixdim. nibabel and SimpleITK take the sform: L, P, S from (120, 100, -50).
# MONAI's reader sees that the two spacings differ and repairs the header with the qform, which is not set: the same
# voxels become R, A, S from (0, 0, 0). Nothing is said. With exact numbers in the sform MONAI agrees with the others.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet monai==1.6.1 nibabel==5.4.2 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import nibabel as nib
import numpy as np
from monai.transforms import LoadImage

SIZE = 0.48828125
AFFINE = np.array([[-SIZE, 0, 0, 120], [0, -SIZE, 0, 100], [0, 0, 5, -50], [0, 0, 0, 1]])


def place(affine):
    return nib.aff2axcodes(affine), tuple(float(round(x, 2)) for x in affine[:3, 3])


seen = {}
for name, decimals in (("exact", 9), ("rounded", 4)):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.set_sform(AFFINE.round(decimals), 1)
    image.header["qform_code"] = 0
    image.header.set_zooms((SIZE, SIZE, 5))
    nib.save(image, f"{name}.nii")
    for reader, affine in (("nibabel", nib.load(f"{name}.nii").affine), ("monai", LoadImage()(f"{name}.nii").affine.numpy())):
        seen[name, reader] = place(affine)
        print(f"{name:8} {reader:8} {seen[name, reader]}")

here = (("L", "P", "S"), (120.0, 100.0, -50.0))
lost = (("R", "A", "S"), (0.0, 0.0, 0.0))
expected = {("exact", "nibabel"): here, ("exact", "monai"): here, ("rounded", "nibabel"): here, ("rounded", "monai"): lost}
sys.exit(seen != expected)
PY
echo "as described"
