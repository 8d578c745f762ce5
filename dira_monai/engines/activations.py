"""Activations that are computed again in the backward pass instead of kept: less memory for more time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from ..utils.errors import InputError
from .precision import SmallMapsInFloat32


def checkpoint_activations(network: nn.Module, wanted: bool) -> nn.Module:
    """The same network, of whose blocks a training keeps the inputs alone if that is wanted.

    What is between (Chen et al., 2016, https://arxiv.org/abs/1604.06174) is computed again where the gradients need
    it: the same numbers for about a third more time. Blocks are the children of the network, and those of its lists,
    that have parameters.

    Raises:
        InputError: if a layer counts statistics while it runs, as batch norm does: they would be counted twice.
    """
    if not wanted:
        return network
    for name, layer in network.named_modules():
        if isinstance(layer, _NormBase) and layer.track_running_stats:
            raise InputError(
                f"checkpoint_activations needs a network without batch norm, which would count each batch twice; "
                f"{name} of this {type(network).__name__} is {type(layer).__name__}; leave it False, or take a network "
                f"with instance or group norm, such as BasicUNet"
            )
    for block in _blocks(network):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=_contexts)
    return network


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Those without parameters keep nothing worth it, and some, as activations, change their input where it lies."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from _blocks(child)
        elif next(child.parameters(), None) is not None:
            yield child


def _contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
    """Of the two passes; checkpoint itself repeats autocast, but no mode of functions."""
    return nullcontext(), SmallMapsInFloat32() if torch.is_autocast_enabled("cpu") else nullcontext()
