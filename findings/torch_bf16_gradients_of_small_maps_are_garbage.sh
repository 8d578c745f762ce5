#!/usr/bin/env bash
# On a CPU with avx512_bf16, the gradient of a convolution's weights in bf16 holds what happens to lie in the memory where
# the image is shorter than the kernel along an axis, as in the deepest layers of a U-Net.
#
# torch 2.13.0 (oneDNN), x86 CPU with avx512_bf16 (here: AMD EPYC, Zen 4). Seen with autocast: of a Conv3d with kernel 3
# and padding 1, on maps of 2 x 4 x 4 voxels (first axis 2 < 3), two equal backward passes give different gradients of
# the weights, NaN among them where freed memory held NaN; likewise a Conv2d with kernel 3 and stride 2 on maps of width
# 1. The output, and the gradients of bias and input, are the same each time; float32 and maps of 3 x 4 x 4 are right.
# A good engineer would expect equal numbers, or an error. A training goes on with wrong gradients, or stops with NaN at a
# random step, which looks like a learning rate that is too high.
#
# Runs without our product, on valid input. Exits 0 if all this is still so, or if the CPU lacks avx512_bf16.
set -euo pipefail
if ! grep -qm1 avx512_bf16 /proc/cpuinfo; then
  echo "this CPU has no avx512_bf16: not tried"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet "torch==2.13.0" "numpy==2.4.6" 2> /dev/null

ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 "$folder/venv/bin/python" - << 'EOF'
import torch
from torch import nn

print("torch", torch.__version__)
torch.set_num_threads(1)


def gradients(layer, images, dtype):
    """Of weights, bias and input, and the output, of one pass; freed memory holds NaN before."""
    for count in (2**8, 2**10, 2**12, 2**14, 2**16, 2**18):
        del [[torch.full((count,), float("nan")) for _ in range(10)]][0]
    layer.zero_grad()
    images.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
        out = layer(images)
    out.float().square().sum().backward()
    return {
        "weight": layer.weight.grad.clone(),
        "bias": layer.bias.grad.clone(),
        "input": images.grad.clone(),
        "output": out.detach().clone(),
    }


def differ(layer, size, dtype="bf16"):
    """What differs between ten equal passes, and whether there is NaN in it."""
    torch.manual_seed(0)
    images = torch.rand(2, 16, *size, requires_grad=True)
    first, names, nan = gradients(layer, images, dtype), set(), False
    for _ in range(10):
        for name, value in gradients(layer, images, dtype).items():
            if not torch.equal(value, first[name]):
                names.add(name)
                nan |= bool(value.isnan().any())
    return sorted(names), nan


deep = nn.Conv3d(16, 16, 3, padding=1)
flat = nn.Conv2d(16, 16, 3, stride=2, padding=1)
cases = {
    "Conv3d, kernel 3, maps of 2 x 4 x 4, bf16": differ(deep, (2, 4, 4)),
    "Conv2d, kernel 3, stride 2, maps of 8 x 1, bf16": differ(flat, (8, 1)),
    "Conv3d, kernel 3, maps of 3 x 4 x 4, bf16": differ(deep, (3, 4, 4)),
    "Conv3d, kernel 3, maps of 2 x 4 x 4, float32": differ(deep, (2, 4, 4), "fp32"),
}
for name, (names, nan) in cases.items():
    print(f"{name}: {', '.join(names) or 'nothing'} differs between equal passes{', NaN' if nan else ''}")
found = list(cases.values())
assert found[0] == (["weight"], True), found[0]
assert found[1] == (["weight"], True), found[1]
assert found[2] == found[3] == ([], False), found[2:]
EOF
echo "as described: gradients of weights hold what happens to lie in the memory"
