#!/usr/bin/env bash
# The U-Nets of nnU-Net take the weights of an encoder, say that all keys matched, and keep the old encoder.
#
# Versions: dynamic-network-architectures 0.4.4 (the networks of nnU-Net 2), torch 2.13.0 (CPU).
# Their state dict has up to four names for one tensor, since the decoder keeps the encoder as a part of it and each block its
# layers twice: 160 names for 50 parameters in a small ResidualEncoderUNet. The usual way to put pre-trained weights of
# the encoder into it - its state dict with every name "encoder.*" replaced, strict - leaves all tensors of the encoder
# as they were, since torch copies the names one by one and the old "decoder.encoder.*" come last. The answer is
# "<All keys matched successfully>". With both families of names replaced, everything arrives.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet dynamic-network-architectures==0.4.4
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

PLAN = {
    "input_channels": 1, "n_stages": 3, "features_per_stage": [4, 8, 16], "conv_op": nn.Conv3d, "kernel_sizes": 3,
    "strides": [1, 2, 2], "num_classes": 2, "n_conv_per_stage_decoder": 1, "conv_bias": True,
    "norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU,
}  # fmt: skip
seen = {}
for kind, blocks in ((ResidualEncoderUNet, "n_blocks_per_stage"), (PlainConvUNet, "n_conv_per_stage")):
    for families in (("encoder.",), ("encoder.", "decoder.encoder.")):
        network = kind(**PLAN, **{blocks: 1})
        state = network.state_dict()
        new = {name: torch.full_like(tensor, 7) for name, tensor in state.items() if name.startswith(families)}
        torch.save(state | new, "weights.pt")
        answer = str(network.load_state_dict(torch.load("weights.pt", weights_only=True)))
        taken = [bool((tensor == 7).all()) for tensor in network.encoder.parameters()]
        row = (len(state), len(list(network.parameters())), sum(taken), len(taken), answer)
        seen[kind.__name__, len(families)] = row
        print(f"{kind.__name__}: {row[0]} names of {row[1]} parameters; {families}: {row[2]} of {row[3]} taken; {answer}")

matched = "<All keys matched successfully>"
expected = {
    ("ResidualEncoderUNet", 1): (160, 50, 0, 34, matched),
    ("ResidualEncoderUNet", 2): (160, 50, 34, 34, matched),
    ("PlainConvUNet", 1): (72, 28, 0, 12, matched),
    ("PlainConvUNet", 2): (72, 28, 12, 12, matched),
}
sys.exit(seen != expected)
PY
echo "as described"
