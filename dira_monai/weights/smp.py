"""The U-Net of segmentation_models_pytorch on a ResNet in names and channel order of ``FlexibleUNet``, and back."""

import re
from collections.abc import Mapping
from itertools import count, takewhile

import torch
from torch import Tensor

_STOCK_BLOCK = re.compile(r"(decoder\.blocks\.\d+)\.convs\.conv_([01])\.(conv|adn\.N)\.(\w+)")
SMP_BLOCK = re.compile(r"(decoder\.blocks\.\d+)\.conv([12])\.(0(?=\.weight$)|1)\.(\w+)")  # no bias before a norm


def smp_to_stock(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of segmentation_models_pytorch's ``Unet`` on a ResNet in names and channel order of FlexibleUNet.

    The first convolution of an smp block takes the upsampled channels before those of the skip, the stock one after.
    """

    def stock(match: re.Match[str]) -> str:
        return f"{match[1]}.convs.conv_{int(match[2]) - 1}.{('conv', 'adn.N')[int(match[3])]}.{match[4]}"

    return _reorder({SMP_BLOCK.sub(stock, key): tensor for key, tensor in state.items()}, upsampled_first=True)


def stock_to_smp(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``smp_to_stock``, exact to the bit."""

    def smp(match: re.Match[str]) -> str:
        return f"{match[1]}.conv{int(match[2]) + 1}.{('conv', 'adn.N').index(match[3])}.{match[4]}"

    ordered = _reorder(dict(state), upsampled_first=False)
    return {_STOCK_BLOCK.sub(smp, key): tensor for key, tensor in ordered.items()}


def _reorder(state: dict[str, Tensor], upsampled_first: bool) -> dict[str, Tensor]:
    """Exchange upsampled and skip channels where a decoder block, in stock names, takes them in."""
    upsampled = width(state, "encoder.layer4.")
    for key in block_keys(state):
        weight = state[key]
        first = upsampled if upsampled_first else weight.shape[1] - upsampled
        state[key] = torch.cat(weight.tensor_split([first], dim=1)[::-1], dim=1)
        upsampled = weight.shape[0]
    return state


def block_keys(state: Mapping[str, Tensor]) -> list[str]:
    """Keys, in stock names, of the weights that take channels into the decoder blocks, deep to fine."""
    keys = (f"decoder.blocks.{block}.convs.conv_0.conv.weight" for block in count())
    return [*takewhile(state.__contains__, keys)]


def width(state: Mapping[str, Tensor], part: str) -> int:
    """Channels that a part of an encoder gives."""
    return max(tensor.shape[0] for key, tensor in state.items() if key.startswith(part) and tensor.ndim)
