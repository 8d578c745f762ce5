"""The momentum branch: a slow copy of a network that follows the one that learns."""

import math

import torch
from torch import Tensor, nn

from ..utils.errors import InputError


@torch.no_grad()
def update_momentum(slow: nn.Module, fast: nn.Module, share: float, buffers: bool) -> None:
    """Move each parameter of ``slow`` by ``share`` towards that of the same name in ``fast``; buffers if asked to."""
    source: dict[str, Tensor] = dict(fast.named_parameters())
    target: dict[str, Tensor] = dict(slow.named_parameters())
    if buffers:
        source |= fast.named_buffers()
        target |= {name: b for name, b in slow.named_buffers() if b.dtype.is_floating_point}
    torch._foreach_lerp_(list(target.values()), [source[name] for name in target], share)


def check_momentum(**values: float) -> None:
    """Refuse momenta, given by name, that are outside of [0, 1].

    Raises:
        InputError: names the first.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} must lie in [0, 1], got {value}")


def cosine_schedule(start: float, end: float, progress: float) -> float:
    """What goes from ``start`` to ``end`` along half a cosine while ``progress`` goes from 0 to 1."""
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2
