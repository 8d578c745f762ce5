#!/usr/bin/env bash
# SimpleITK and nibabel place the same valid NIfTI file at different points in space.
#
# Versions: SimpleITK 2.5.7 (ITK 5.4), nibabel 5.4.2, numpy 2.4.6.
# A header holds two forms, each with a code. nibabel takes the sform wherever its code is set. SimpleITK takes the
# qform where the code of the sform is 2, 3 or 4 (aligned, Talairach, MNI), as after a registration that kept the
# scanner's qform. Where neither is set, nibabel guesses L, A, S around the middle and SimpleITK L, P, S from 0. A label
# map that one program draws thus lies elsewhere in the other. Nothing is said.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import nibabel as nib
import numpy as np
import SimpleITK

SFORM = np.array([[-1.0, 0, 0, 90], [0, -1, 0, 80], [0, 0, 2, -70], [0, 0, 0, 1]])
QFORM = np.diag([1.0, 1, 2, 1])


def by_simpleitk(name):
    image = SimpleITK.ReadImage(name)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine  # LPS to RAS


def place(affine):
    return "".join(nib.aff2axcodes(affine)), tuple(float(value) for value in affine[:3, 3] + 0)


seen = {}
for sform, qform in ((1, 1), (2, 1), (4, 1), (0, 0)):
    header = nib.Nifti1Header()
    header.set_data_shape((4, 5, 6))
    header.set_qform(QFORM, qform)
    header.set_sform(SFORM, sform)
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None, header), "a.nii")
    seen[sform, qform] = place(nib.load("a.nii").affine), place(by_simpleitk("a.nii"))
    print("codes of sform and qform", sform, qform, "nibabel", *seen[sform, qform][0], "SimpleITK", *seen[sform, qform][1])

by_sform, by_qform = ("LPS", (90.0, 80.0, -70.0)), ("RAS", (0.0, 0.0, 0.0))
guesses = ("LAS", (1.5, -2.0, -5.0)), ("LPS", (0.0, 0.0, 0.0))
expected = {(1, 1): (by_sform,) * 2, (2, 1): (by_sform, by_qform), (4, 1): (by_sform, by_qform), (0, 0): guesses}
sys.exit(seen != expected)
PY
echo "as described"
