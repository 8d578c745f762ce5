#!/usr/bin/env bash
# nibabel moves the labels of a label map off the whole numbers when it is loaded as numbers and saved with its header.
#
# Versions: nibabel 5.4.2, SimpleITK 2.5.7 (ITK 5.4), numpy 2.4.6.
# Nifti1Image(image.get_fdata(), image.affine, image.header) is how voxels that were worked on go back into their file.
# The array is float64, the header still says uint8, so nibabel stretches the values over the 256 numbers and writes a
# slope: of labels 0, 1, 2 the 1 comes back as 0.996. Which labels move depends on the largest one: it must divide 255
# (1, 3, 5, 15) for all to be within rounding. Who then takes whole numbers the usual way (astype of numpy, reading as
# UInt8 in SimpleITK) cuts them off, and a class is background. Nothing is said. With set_data_dtype(float), or an array
# of integers, all labels stay.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import nibabel as nib
import numpy as np
import SimpleITK


def come_back(largest, dtype=None):
    """Labels after one round: as numbers, as integers by numpy, as integers by SimpleITK."""
    labels = np.arange(largest + 1, dtype=np.uint8).reshape(-1, 1, 1)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), "a.nii.gz")
    image = nib.load("a.nii.gz")
    array = image.get_fdata() if dtype is None else image.get_fdata().astype(dtype)
    nib.save(nib.Nifti1Image(array, image.affine, image.header), "b.nii.gz")
    values = nib.load("b.nii.gz").get_fdata().ravel()
    by_itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("b.nii.gz", SimpleITK.sitkUInt8)).ravel()
    return values.round(3).tolist(), values.astype(np.uint8).tolist(), by_itk.tolist()


seen = {largest: come_back(largest) for largest in (2, 3, 4, 5, 7)}
for largest, (values, integers, by_itk) in seen.items():
    print("labels 0 to", largest, "come back as", values, "as integers", integers, "SimpleITK", by_itk)
expected = {
    2: ([0, 0.996, 2], [0, 0, 2]),
    3: ([0, 1, 2, 3], [0, 1, 2, 3]),
    4: ([0, 1.004, 1.992, 2.996, 4], [0, 1, 1, 2, 4]),
    5: ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    7: ([0, 0.988, 2.004, 2.992, 4.008, 4.996, 6.012, 7], [0, 0, 2, 2, 4, 4, 6, 7]),
}
stays = come_back(2, np.uint8)
print("labels 0 to 2 from an array of integers:", *stays)
same = stays == ([0, 1, 2],) * 3
sys.exit(not (same and seen == {largest: (*both, both[1]) for largest, both in expected.items()}))
PY
echo "as described"
