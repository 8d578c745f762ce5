#!/usr/bin/env bash
# TorchIO's GridAggregator adds up overlapping patches in the type that they come in, so their average wraps round.
#
# Versions: torchio 1.2.1, torch 2.13.0 (CPU).
# GridAggregator(sampler, overlap_mode="average") keeps the sum of all patches in the type of the first one and divides
# at the end, in float32: the result looks as if it had been computed in float32. Patches of 32 voxels that overlap by
# half are added up to eight times: of an image that is 200 everywhere, as uint8, 70 % of the voxels come back as 8 or
# 72; of 5000 as int16, as in MR, those in the middle as -3192; of 12000 as float16, as a network under autocast gives
# it, as infinity. Nothing is said. overlap_mode="hann" adds up in float32 and gives the image back; so does "average"
# for patches that were cast to float32 first, as networks give them without autocast.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet torch==2.13.0 torchio==1.2.1
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import torch
import torchio as tio

SIDE, PATCH, OVERLAP = 48, 32, 16


def put_together(kind, value, mode, cast=None):
    image = tio.ScalarImage(tensor=torch.full((1, SIDE, SIDE, SIDE), value).to(kind))
    sampler = tio.GridSampler(tio.Subject(image=image), patch_size=PATCH, patch_overlap=OVERLAP)
    aggregator = tio.GridAggregator(sampler, overlap_mode=mode)
    for patch in sampler:
        aggregator.add_batch(patch["image"].data[None].to(cast or kind), patch[tio.LOCATION][None])
    whole = aggregator.get_output_tensor().float()
    return sorted({round(float(number), 2) for number in whole.unique()})


INFINITE = float("inf")
EXPECTED = {torch.uint8: (200, [8, 72, 200]), torch.int16: (5000, [-3192, 5000]), torch.float16: (12000, [12000, INFINITE])}
same = True
for kind, (value, wrapped) in EXPECTED.items():
    average = put_together(kind, value, "average")
    right = [put_together(kind, value, "hann"), put_together(kind, value, "average", torch.float32)]
    print(f"{kind}, {value} everywhere: average {average}; hann {right[0]}; average of float32 {right[1]}")
    same &= average == wrapped and all(len(set(map(round, numbers))) == 1 and round(numbers[0]) == value for numbers in right)
sys.exit(not same)
PY
echo "as described"
