#!/usr/bin/env bash
# What torch's activation checkpointing computes again, it computes outside of the TorchFunctionMode of the forward pass:
# gradients are silently others.
#
# torch 2.13.0. `checkpoint(..., use_reentrant=False)` repeats autocast and the random numbers in the backward pass, but no
# mode of functions (torch.overrides.TorchFunctionMode). Seen: of x -> f(x)^2, where a mode doubles the sine f, the gradient is
# half of the right one, without an error or a warning, since the tensors made again have the same shapes and types.
# A good engineer would expect both passes to run the same code, as with autocast. Blocks of 3D networks are checkpointed
# since volumes do not fit, and modes are how layers are redirected without touching them: to float32, to another kernel.
# `context_fn` of checkpoint, whose second context is that of the second pass, puts the mode back.
#
# Runs without our product, on valid input. Exits 0 if all this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet "torch==2.13.0" "numpy==2.4.6" 2> /dev/null

"$folder/venv/bin/python" - << 'EOF'
from contextlib import nullcontext
from functools import partial

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

print("torch", torch.__version__)


class Doubled(TorchFunctionMode):
    """The sine times two."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        return out * 2 if function is torch.sin else out


def block(x):
    return torch.sin(x) ** 2


def gradient(run):
    x = torch.tensor([0.5], requires_grad=True)
    with Doubled():
        y = run(block, x)
    y.backward()
    return y.item(), x.grad.item()


kept = partial(checkpoint, use_reentrant=False)
plain, again = gradient(lambda f, x: f(x)), gradient(kept)
mended = gradient(partial(kept, context_fn=lambda: (nullcontext(), Doubled())))
print(f"value and gradient: {plain[0]:.4f}, {plain[1]:.4f}; checkpointed {again[0]:.4f}, {again[1]:.4f};", end=" ")
print(f"with the mode in context_fn {mended[0]:.4f}, {mended[1]:.4f}")
assert plain == mended and again[0] == plain[0] and again[1] == plain[1] / 2, (plain, again, mended)
EOF
echo "as described: the second pass of checkpoint runs without the modes of the first"
