"""The two halves of stock MONAI networks, so that any of them can be pre-trained without touching its class.

Known are the classes of ``encoder_parts.NETWORKS`` (``FlexibleUNet``, ``SegResNet``, ``BasicUNet``, ``DynUNet``,
``SwinUNETR`` of MONAI, ``GenesisUNet``), those of nnU-Net (``PlainConvUNet`` and ``ResidualEncoderUNet`` of the
optional package dynamic-network-architectures) and their subclasses; for any other class every function here raises a
``TypeError`` that lists the known ones. Networks must not be wrapped.
"""

import copy

import torch
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from .encoder_parts import NETWORKS, OPTIONAL, Parts, encode_chain, encoder_names, encoder_parts, find_parts


def network_parts(network: nn.Module) -> Parts:
    """How the network is taken apart."""
    parts = find_parts(network)
    if parts is None:
        names = [*(kind.__name__ for kind in NETWORKS), *(place.rpartition(".")[2] for place in OPTIONAL)]
        known = ", ".join(sorted(names))
        raise TypeError(f"cannot take a {type(network).__name__} apart into encoder and decoder; known are {known}.")
    return parts


def encode(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Feature maps of the encoder, fine to coarse: all that ``decode`` needs, the deepest last.

    Works on a whole network and on the result of ``encoder_only``; refuses a ``DynUNet`` with deep supervision, whose
    output is no single image. ``x``, (B, C, *spatial), has a size that ``check_patch_size`` accepts.
    """
    parts = network_parts(network)
    return parts.encode(network, x) if parts.encode else encode_chain(encoder_parts(network), x)


def decoder_maps(network: nn.Module, features: list[Tensor]) -> list[Tensor]:
    """Feature maps of the decoder, coarse to fine, from those of ``encode``: the output of each of its blocks."""
    return network_parts(network).decode(network, features)


def output_layer(network: nn.Module) -> nn.Module:
    """What makes the output of the network (logits) from the finest map of the decoder."""
    return network_parts(network).output(network)


def decode(network: nn.Module, features: list[Tensor]) -> Tensor:
    """Output of the network (logits) from the maps of ``encode``: ``decode(n, encode(n, x))`` equals ``n(x)``."""
    return output_layer(network)(decoder_maps(network, features)[-1])


def without_skips(features: list[Tensor]) -> list[Tensor]:
    """The same maps with all but the deepest replaced by zeros, for a U-Net that must carry all it knows downwards.

    The network stays what it is: its weights for skip connections are there, unused, and fine-tuning may use them.
    """
    return [*map(torch.zeros_like, features[:-1]), features[-1]]


def downsampling(network: nn.Module) -> tuple[int, ...]:
    """How many times smaller the deepest map is than the image, per axis; also the smallest image that is possible."""
    factor = network_parts(network).downsampling(network)
    return ensure_tuple_rep(factor, _stem(network).ndim - 2)


def encoder_only(network: nn.Module) -> nn.Module:
    """A deep copy that keeps only what ``encode`` uses, for a momentum branch that needs no decoder."""
    network_parts(network)
    encoder = copy.deepcopy(network)
    for name in set(dict(network.named_children())) - set(encoder_names(network)):
        delattr(encoder, name)  # DynUNet's skip_layers, a second path to its blocks, goes too: it holds the decoder
    return encoder


def encoder_state(network: nn.Module) -> dict[str, Tensor]:
    """The part of ``network.state_dict()`` that belongs to the encoder, keys unchanged; memory is shared.

    Where a tensor has several keys (``DynUNet`` and nnU-Net's networks list blocks more than once), all are kept.
    """
    network_parts(network)
    own = {id(tensor) for part in encoder_parts(network) for tensor in part.state_dict(keep_vars=True).values()}
    kept = [key for key, tensor in network.state_dict(keep_vars=True).items() if id(tensor) in own]
    state = network.state_dict()
    return {key: state[key] for key in kept}


@torch.no_grad()
def feature_channels(network: nn.Module) -> int:
    """Channels of the deepest map, found by encoding the smallest image with a copy of the network."""
    return encode(encoder_only(network).eval(), _smallest_image(network))[-1].shape[1]


@torch.no_grad()
def decoder_channels(network: nn.Module) -> list[int]:
    """Channels of each map of the decoder, coarse to fine, and last those of the output, found like the deepest's."""
    network = copy.deepcopy(network).eval()
    maps = decoder_maps(network, encode(network, _smallest_image(network)))
    return [tensor.shape[1] for tensor in (*maps, output_layer(network)(maps[-1]))]


def _stem(network: nn.Module) -> Tensor:
    """Weight of the first convolution, shape (channels, in_channels, *kernel)."""
    return next(weight for weight in network.parameters() if weight.ndim > 2)


def _smallest_image(network: nn.Module) -> Tensor:
    """Zeros, shape (1, in_channels, *spatial)."""
    stem = _stem(network)
    first, *rest = downsampling(network)
    return stem.new_zeros(1, stem.shape[1], 2 * first, *rest)  # doubled: instance norm needs two values
