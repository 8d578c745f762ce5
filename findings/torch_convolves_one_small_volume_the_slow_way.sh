#!/usr/bin/env bash
# On a CPU torch convolves a batch of one volume by other code than a batch of two, where its maps are small: that one
# volume takes nearly as long as two.
#
# torch 2.13.0, x86 CPU (here: AMD EPYC, Zen 4). In float32, Conv3d with kernel 3 and as many channels as the deep layers
# of a U-Net: where channels x depth x height of a batch of one are at most 20,480 (256 x 8 x 8, 128 x 12 x 12), torch runs
# `slow_conv3d`, which unfolds the volume into a matrix; with two volumes, or larger maps, it runs oneDNN. Seen: 256
# channels on 8 x 8 x 8 take 22 ms for one volume and 28 ms for two, 128 channels on 12 x 12 x 12 take 22 and 23 ms; of
# 16 x 16 x 16 two take twice as long as one. Outputs differ in the last bits.
# A good engineer would expect one path for all batches, half of the time for half of the work, and a window's scores not
# to depend on how many lie in its batch. Sliding windows whose last batch holds one window, patients one by one in an
# evaluation, and batches of 1 in training meet it; of the forward pass of a U-Net on one volume of 64 x 64 x 64 it is 13 %.
#
# Runs without our product, on valid input. Exits 0 if all this is still so; times are shown and not judged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet "torch==2.13.0" "numpy==2.4.6" 2> /dev/null

KINETO_LOG_LEVEL=99 "$folder/venv/bin/python" - << 'EOF' # the profiler tells nothing of itself; a failure is seen
import time

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

print("torch", torch.__version__)
torch.set_num_threads(1)
torch.manual_seed(0)


def paths(layer, images):
    """The code that a convolution ran."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        layer(images)
    names = {event.key for event in seen.key_averages()}
    return sorted(names & {"aten::slow_conv3d_forward", "aten::mkldnn_convolution"})


def milliseconds(layer, images):
    """Median of seven."""
    times = []
    for _ in range(7):
        start = time.process_time()
        layer(images)
        times.append(time.process_time() - start)
    return sorted(times)[3] * 1e3


found = []
with torch.inference_mode():
    for channels, side in ((256, 8), (128, 12), (128, 16)):
        layer, images = nn.Conv3d(channels, channels, 3, padding=1), torch.rand(2, channels, side, side, side)
        one, two = paths(layer, images[:1]), paths(layer, images)
        same = torch.equal(layer(images[:1]), layer(images)[:1])
        found.append((one, two, same))
        times = [milliseconds(layer, images[:count]) for count in (1, 2)]
        print(f"{channels} channels, {side}^3: one volume {one[0]}, {times[0]:.1f} ms; two {two[0]}, {times[1]:.1f} ms;", end=" ")
        print("equal" if same else "other last bits")
slow, fast = ["aten::slow_conv3d_forward"], ["aten::mkldnn_convolution"]
assert found[0] == found[1] == (slow, fast, False), found
assert found[2] == (fast, fast, True), found
EOF
echo "as described: a batch of one small volume is convolved by slow_conv3d"
