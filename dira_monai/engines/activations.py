"""Activations that are computed again in the backward pass instead of kept: less memory for more time."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..networks.encoder_decoder import output_layer
from ..utils.errors import InputError
from .precision import SmallMapsInFloat32


def checkpoint_activations(network: nn.Module, wanted: bool) -> nn.Module:
    """The same network, of whose blocks a training keeps the inputs alone if that is wanted.

    What is between (Chen et al., 2016, https://arxiv.org/abs/1604.06174) is computed again where the gradients need
    it: the same numbers for about a third more time. Blocks are the children of the network but its output layer.

    Raises:
        InputError: if a layer counts statistics while it runs, as batch norm does: they would be counted twice.
    """
    if not wanted:
        return network
    last = output_layer(network)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
            raise InputError(
                f"checkpoint_activations needs a network without batch norm, whose statistics would count each batch "
                f"twice; {name} of this {type(network).__name__} is {type(layer).__name__}"
            )
    for block in network.children():
        if block is not last:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=_contexts)
    return network


def _contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
    """Of the two passes; checkpoint itself repeats autocast, but no mode of functions."""
    return nullcontext(), SmallMapsInFloat32() if torch.is_autocast_enabled("cpu") else nullcontext()
