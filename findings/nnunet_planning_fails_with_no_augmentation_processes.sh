#!/usr/bin/env bash
# nnU-Net plans no experiment where nnUNet_n_proc_DA is 0, the number of processes with which it trains in one process.
#
# Versions: nnunetv2 2.8.1, torch 2.13.0, torchvision 0.28.0 (CPU).
# Its trainer takes nnUNet_n_proc_DA=0 as "augment in the process itself" (SingleThreadedAugmenter), for debuggers and
# machines that allow no further processes. With the variable set, nnUNetv2_plan_and_preprocess reads the fingerprint
# and ends with "RuntimeError: set_num_threads expects a positive integer": the planner gives the same number to
# torch.set_num_threads. With nnUNet_n_proc_DA=1 the same command writes its plans.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0 torchvision==0.28.0 nnunetv2==2.8.1
cd "$T"
mkdir -p raw/Dataset001_Noise/imagesTr raw/Dataset001_Noise/labelsTr
"$T/env/bin/python" -W ignore - <<'PY'
import json

import nibabel as nib
import numpy as np

rng, folder = np.random.default_rng(0), "raw/Dataset001_Noise"
for case in ("a", "b", "c", "d", "e"):
    image, label = rng.normal(size=(20, 20, 20)).astype(np.float32), np.zeros((20, 20, 20), np.uint8)
    label[5:10, 5:10, 5:10] = 1
    nib.save(nib.Nifti1Image(image, np.eye(4)), f"{folder}/imagesTr/{case}_0000.nii.gz")
    nib.save(nib.Nifti1Image(label, np.eye(4)), f"{folder}/labelsTr/{case}.nii.gz")
dataset = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "cube": 1}, "numTraining": 5, "file_ending": ".nii.gz"}
json.dump(dataset, open(f"{folder}/dataset.json", "w"))
PY
export nnUNet_raw=$T/raw nnUNet_results=$T/results
for N in 0 1; do
  export nnUNet_preprocessed=$T/preprocessed$N nnUNet_n_proc_DA=$N
  "$T/env/bin/nnUNetv2_plan_and_preprocess" -d 1 -c 3d_fullres -npfp 1 -np 1 --no_pp > "said$N" 2>&1 && S=0 || S=$?
  echo "nnUNet_n_proc_DA=$N: exit status $S, $(tail -1 "said$N" | cut -c1-80)"
done
[ ! -e preprocessed0/Dataset001_Noise/nnUNetPlans.json ] || exit 1
grep -q "RuntimeError: set_num_threads expects a positive integer" said0 || exit 1
[ -e preprocessed1/Dataset001_Noise/nnUNetPlans.json ] || exit 1
echo "as described"
