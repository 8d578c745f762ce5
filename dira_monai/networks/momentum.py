"""The momentum branch: a slow copy of a network that follows the one that learns."""

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_momentum(slow: nn.Module, fast: nn.Module, share: float, buffers: bool) -> None:
    """Move each parameter of ``slow`` by ``share`` towards that of the same name in ``fast``; buffers if asked to."""
    source: dict[str, Tensor] = dict(fast.named_parameters())
    target: dict[str, Tensor] = dict(slow.named_parameters())
    if buffers:
        source |= fast.named_buffers()
        target |= {name: b for name, b in slow.named_buffers() if b.dtype.is_floating_point}
    torch._foreach_lerp_(list(target.values()), [source[name] for name in target], share)


def cosine_schedule(start: float, end: float, progress: float) -> float:
    """What goes from ``start`` to ``end`` along half a cosine while ``progress`` goes from 0 to 1."""
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2
