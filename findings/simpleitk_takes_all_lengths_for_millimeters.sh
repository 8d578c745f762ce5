#!/usr/bin/env bash
# SimpleITK reads NRRD and MetaImage files whose lengths are in micrometers or meters as if they were millimeters.
#
# Versions: SimpleITK 2.5.7 (ITK 5.4), pynrrd 1.1.3, nibabel 5.4.2, numpy 2.4.6.
# NRRD has fields for the unit of lengths ("space units", or "units" an axis), MetaImage has DistanceUnits. SimpleITK
# gives the number alone, so voxels of 500 um have a spacing of 500, and of NRRD no meta data tells the unit (of
# MetaImage ITK_VoxelUnits does). The same number in a NIfTI file of micrometers (xyzt_units) is converted: 0.5 mm. So
# resampling to 1 mm makes a grid 1000 times too long of two of three files that say the same. Nothing is said.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet SimpleITK==2.5.7 pynrrd==1.1.3 nibabel==5.4.2 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import nibabel as nib
import nrrd
import numpy as np
import SimpleITK

SIZE = 500.0  # um
values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
directions = {"space": "left-posterior-superior", "space directions": np.diag([SIZE] * 3), "space units": ["um"] * 3}
nrrd.write("a.nrrd", values, directions)
image = SimpleITK.GetImageFromArray(values)
image.SetSpacing([SIZE] * 3)
SimpleITK.WriteImage(image, "a.mha")
content = open("a.mha", "rb").read().replace(b"ElementType", b"DistanceUnits = um\nElementType", 1)
open("a.mha", "wb").write(content)
volume = nib.Nifti1Image(values, np.diag([SIZE, SIZE, SIZE, 1]))
volume.header.set_xyzt_units("micron")
nib.save(volume, "a.nii")

assert list(nrrd.read_header("a.nrrd")["space units"]) == ["um"] * 3
found = {}
for name in ("a.nrrd", "a.mha", "a.nii"):
    image = SimpleITK.ReadImage(name)
    keys = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    units = [key for key in keys if "units" in key.lower()]
    found[name] = round(image.GetSpacing()[0], 6)
    print(name, "SimpleITK: spacing", image.GetSpacing(), "unit told by", units or "nothing")
sys.exit(found != {"a.nrrd": SIZE, "a.mha": SIZE, "a.nii": SIZE / 1000})
PY
echo "as described"
