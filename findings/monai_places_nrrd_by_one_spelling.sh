#!/usr/bin/env bash
# MONAI places an NRRD file by how its space is spelled: "LPS" is turned half round from "left-posterior-superior".
#
# Versions: monai 1.6.1, pynrrd 1.1.3, SimpleITK 2.5.7, itk 5.4.7, nibabel 5.4.2, torch 2.13.0 (CPU), numpy 2.4.6.
# The format has two names for each space, a long and a short one (LPS, LAS, RAS). SimpleITK knows both. NrrdReader,
# which LoadImage takes by itself where pynrrd is installed, turns the long name of LPS into the RAS of MONAI's other
# readers and leaves the affine of all other names as it is. ResampleToMatch and SaveImage take each affine for RAS, so
# a label map of space LPS or LAS comes out empty on its own image, and lies elsewhere in the NIfTI written. Nothing is
# said. (Orientation alone reads that name: it is right for LPS and refuses LAS with a ValueError.)
# With reader="ITKReader" all three files are where SimpleITK has them.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet torch==2.13.0 monai==1.6.1 pynrrd==1.1.3 SimpleITK==2.5.7 itk==5.4.7 \
  nibabel==5.4.2 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY' 2> errors || { cat errors >&2; exit 1; }
import sys

import nibabel
import nrrd
import numpy as np
import SimpleITK
import torch
from monai.transforms import LoadImage, ResampleToMatch, SaveImage

labels = np.zeros((20, 20, 20), np.uint8)
labels[4:10, 5:11, 6:12] = 1
seen = {}
for space in ("left-posterior-superior", "LPS", "LAS"):
    header = {"space": space, "space directions": np.diag([1.0, 1.0, 2.0]), "space origin": [30.0, 40.0, 50.0]}
    nrrd.write(f"{space}.nrrd", labels, header)
    SimpleITK.WriteImage(SimpleITK.ReadImage(f"{space}.nrrd"), f"{space}.sitk.nii.gz")  # the same place, as NIfTI
    image = LoadImage(ensure_channel_first=True)(f"{space}.sitk.nii.gz")
    for reader in (None, "ITKReader"):
        read = LoadImage(reader=reader, ensure_channel_first=True)(f"{space}.nrrd")
        SaveImage("out", separate_folder=False, resample=False, print_log=False)(read)
        written = nibabel.load(f"out/{space}_trans.nii.gz").affine
        on_image = ResampleToMatch(mode="nearest", padding_mode="zeros")(read, image)
        seen[space, reader] = int((torch.as_tensor(on_image) > 0).sum()), np.allclose(written, image.affine, atol=1e-3)
        print(space, reader or "by itself", "origin in NIfTI", written[:3, 3], "voxels on image", seen[space, reader])
here, lost = (int(labels.sum()), True), (0, False)
sys.exit(list(seen.values()) != [here, here, lost, here, lost, here])
PY
echo "as described"
