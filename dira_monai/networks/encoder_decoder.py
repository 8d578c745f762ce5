"""The two halves of stock MONAI networks, so that any of them can be pre-trained without touching its class.

Known are ``FlexibleUNet``, ``SegResNet``, ``BasicUNet``, ``DynUNet``, ``SwinUNETR`` of MONAI, ``GenesisUNet`` and their
subclasses; for any other class every function here raises a ``TypeError`` that lists the known ones. A further class
joins by registering one function each with ``encode``, ``decoder_maps``, ``output_layer``, ``encoder_names`` and
``downsampling``.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import singledispatch
from math import prod

import torch
from monai.networks.nets import BasicUNet, DynUNet, FlexibleUNet, SegResNet, SwinUNETR
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from .genesis_unet import GenesisUNet


@singledispatch
def encode(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Feature maps of the encoder, fine to coarse: all that ``decode`` needs, the deepest last.

    Works on a whole network and on the result of ``encoder_only``.

    Args:
        network: one of the known networks, not wrapped.
        x: image, shape (B, C, *spatial), of a size that ``check_patch_size`` accepts.

    Raises:
        ValueError: if a ``DynUNet`` was built with deep supervision, as its output is then no single image.
    """
    raise _unknown(network)


@singledispatch
def decoder_maps(network: nn.Module, features: list[Tensor]) -> list[Tensor]:
    """Feature maps of the decoder, coarse to fine: the output of each of its blocks.

    Args:
        network: the network whose ``encode`` gave the maps.
        features: the maps of ``encode``; they are left as they are.
    """
    raise _unknown(network)


@singledispatch
def output_layer(network: nn.Module) -> nn.Module:
    """What makes the output of the network (logits) from the finest map of the decoder."""
    raise _unknown(network)


def decode(network: nn.Module, features: list[Tensor]) -> Tensor:
    """Output of the network (logits) from the maps of ``encode``: ``decode(n, encode(n, x))`` equals ``n(x)``."""
    return output_layer(network)(decoder_maps(network, features)[-1])


def without_skips(features: list[Tensor]) -> list[Tensor]:
    """The same maps with all but the deepest replaced by zeros, for a U-Net that must carry all it knows downwards.

    The network stays what it is: its weights for skip connections are there, unused, and fine-tuning may use them.
    """
    return [*map(torch.zeros_like, features[:-1]), features[-1]]


@singledispatch
def encoder_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the child modules that ``encode`` uses, in their order of use."""
    raise _unknown(network)


@singledispatch
def downsampling(network: nn.Module) -> tuple[int, ...]:
    """How many times smaller the deepest map is than the image, per axis; also the smallest image that is possible."""
    raise _unknown(network)


def encoder_only(network: nn.Module) -> nn.Module:
    """A deep copy that keeps only what ``encode`` uses, for a momentum branch that needs no decoder."""
    encoder = copy.deepcopy(network)
    for name in set(dict(network.named_children())) - set(encoder_names(network)):
        delattr(encoder, name)  # DynUNet's skip_layers, a second path to its blocks, goes too: it holds the decoder
    return encoder


def encoder_state(network: nn.Module) -> dict[str, Tensor]:
    """The part of ``network.state_dict()`` that belongs to the encoder, keys unchanged; memory is shared.

    Where a tensor has several keys (``DynUNet`` lists its blocks twice), all of them are kept.
    """
    own = {id(tensor) for part in _parts(network) for tensor in part.state_dict(keep_vars=True).values()}
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


def _unknown(network: nn.Module) -> TypeError:
    known = ", ".join(sorted(kind.__name__ for kind in encode.registry if kind is not object))
    return TypeError(f"cannot take a {type(network).__name__} apart into encoder and decoder; known are {known}.")


def _stem(network: nn.Module) -> Tensor:
    """Weight of the first convolution, shape (channels, in_channels, *kernel)."""
    return next(weight for weight in network.parameters() if weight.ndim > 2)


def _smallest_image(network: nn.Module) -> Tensor:
    """Zeros, shape (1, in_channels, *spatial)."""
    stem = _stem(network)
    first, *rest = downsampling(network)
    return stem.new_zeros(1, stem.shape[1], 2 * first, *rest)  # doubled: instance norm needs two values


def _every_axis(network: nn.Module, value: int) -> tuple[int, ...]:
    return (value,) * (_stem(network).ndim - 2)


def _parts(network: nn.Module) -> list[nn.Module]:
    return [getattr(network, name) for name in encoder_names(network)]


def _encode_chain(blocks: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """The maps of an encoder whose blocks follow each other."""
    features = []
    for block in blocks:
        x = block(x)
        features.append(x)
    return features


def _decode_chain(blocks: Iterable[Callable[..., Tensor]], features: Sequence[Tensor | None]) -> list[Tensor]:
    """The maps of a decoder whose blocks take the map below and the skip map, which may be None."""
    maps, x = [], features[-1]
    for block, skip in zip(blocks, features[-2::-1], strict=True):
        x = block(x, skip)
        maps.append(x)
    return maps


encode.register(FlexibleUNet, lambda network, x: network.encoder(x))


encoder_names.register(FlexibleUNet, lambda network: ("encoder",))


downsampling.register(FlexibleUNet, lambda network: _every_axis(network, 2 ** (network.skip_connect + 1)))


output_layer.register(FlexibleUNet, lambda network: network.segmentation_head)


@decoder_maps.register
def _(network: FlexibleUNet, features: list[Tensor]) -> list[Tensor]:
    blocks = network.decoder.blocks
    skips = features[:-1][::-1][: network.skip_connect]
    missing = [None] * (len(blocks) - len(skips))
    return _decode_chain(blocks, [*missing, *skips[::-1], features[-1]])


_SEGRESNET = ("convInit", "dropout", "down_layers")  # dropout exists on demand


encode.register(SegResNet, lambda network, x: network.encode(x)[1])


encoder_names.register(SegResNet, lambda network: tuple(name for name in _SEGRESNET if hasattr(network, name)))


downsampling.register(SegResNet, lambda network: _every_axis(network, 2 ** (len(network.blocks_down) - 1)))


output_layer.register(SegResNet, lambda network: network.conv_final if network.use_conv_final else nn.Identity())


@decoder_maps.register
def _(network: SegResNet, features: list[Tensor]) -> list[Tensor]:
    blocks = zip(network.up_samples, network.up_layers, strict=True)
    return _decode_chain([lambda x, skip, u=up, b=block: b(u(x) + skip) for up, block in blocks], features)


encoder_names.register(BasicUNet, lambda network: ("conv_0", "down_1", "down_2", "down_3", "down_4"))


downsampling.register(BasicUNet, lambda network: _every_axis(network, 16))


output_layer.register(BasicUNet, lambda network: network.final_conv)


@decoder_maps.register
def _(network: BasicUNet, features: list[Tensor]) -> list[Tensor]:
    return _decode_chain([network.upcat_4, network.upcat_3, network.upcat_2, network.upcat_1], features)


encoder_names.register(GenesisUNet, lambda network: ("down_tr64", "down_tr128", "down_tr256", "down_tr512"))


downsampling.register(GenesisUNet, lambda network: _every_axis(network, 8))


@encode.register(BasicUNet)
@encode.register(GenesisUNet)
def _(network: nn.Module, x: Tensor) -> list[Tensor]:
    return _encode_chain(_parts(network), x)


output_layer.register(GenesisUNet, lambda network: network.out_tr)


@decoder_maps.register
def _(network: GenesisUNet, features: list[Tensor]) -> list[Tensor]:
    return _decode_chain([network.up_tr256, network.up_tr128, network.up_tr64], features)


encoder_names.register(DynUNet, lambda network: ("input_block", "downsamples", "bottleneck"))


@downsampling.register
def _(network: DynUNet) -> tuple[int, ...]:
    strides = [ensure_tuple_rep(stride, network.spatial_dims) for stride in network.strides]
    return tuple(prod(axis) for axis in zip(*strides, strict=True))


@encode.register
def _(network: DynUNet, x: Tensor) -> list[Tensor]:
    if network.deep_supervision:
        raise ValueError("DynUNet must have deep_supervision=False, got True: its output would be a stack of images.")
    return _encode_chain([network.input_block, *network.downsamples, network.bottleneck], x)


output_layer.register(DynUNet, lambda network: network.output_block)


@decoder_maps.register
def _(network: DynUNet, features: list[Tensor]) -> list[Tensor]:
    return _decode_chain(network.upsamples, features)


_SWINUNETR = ("swinViT", "encoder1", "encoder2", "encoder3", "encoder4", "encoder10")


encoder_names.register(SwinUNETR, lambda network: _SWINUNETR)


downsampling.register(SwinUNETR, lambda network: _every_axis(network, 32))  # its decoder only fits a patch_size of 2


@encode.register
def _(network: SwinUNETR, x: Tensor) -> list[Tensor]:
    hidden = network.swinViT(x, network.normalize)
    skips = [network.encoder1(x), network.encoder2(hidden[0]), network.encoder3(hidden[1]), network.encoder4(hidden[2])]
    return [*skips, hidden[3], network.encoder10(hidden[4])]


output_layer.register(SwinUNETR, lambda network: network.out)


@decoder_maps.register
def _(network: SwinUNETR, features: list[Tensor]) -> list[Tensor]:
    blocks = [network.decoder5, network.decoder4, network.decoder3, network.decoder2, network.decoder1]
    return _decode_chain(blocks, features)
