"""Where the encoder of a network ends: the one table that pre-training, weights, optimizers and heat maps share.

A further class of networks joins by one entry of ``NETWORKS``, one of an optional package by one of ``OPTIONAL``.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import prod
from typing import Any

import torch
from monai.networks.nets import BasicUNet, DynUNet, FlexibleUNet, ResNet, SegResNet, SwinUNETR
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from .genesis_unet import GenesisUNet

PRETRAINED = "is_pretrained"  # attribute of parameters that came from a file


@dataclass(frozen=True)
class Parts:
    """How a class of networks is taken apart into encoder and decoder; each function takes the network first."""

    encoder: tuple[str, ...]  # child modules of the encoder in their order of use; some instances may lack some
    downsampling: Callable[[Any], int | Sequence[int]]  # image by deepest map, of all axes or per axis
    decode: Callable[[Any, list[Tensor]], list[Tensor]]  # maps, coarse to fine; leaves those of the encoder as they are
    output: Callable[[Any], nn.Module]  # what makes the output of the network from the finest map of the decoder
    encode: Callable[[Any, Tensor], list[Tensor]] | None = None  # maps, fine to coarse; None: a chain
    pads: bool = False  # whether the network pads maps of odd sizes, so that the output has the size of any image


def encode_chain(blocks: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """The maps of an encoder whose blocks follow each other."""
    features = []
    for block in blocks:
        x = block(x)
        features.append(x)
    return features


def decode_chain(blocks: Iterable[Callable[..., Tensor]], features: Sequence[Tensor | None]) -> list[Tensor]:
    """The maps of a decoder whose blocks take the map below and the skip map, which may be None."""
    maps, x = [], features[-1]
    for block, skip in zip(blocks, features[-2::-1], strict=True):
        x = block(x, skip)
        maps.append(x)
    return maps


def _decode_flexible_unet(network: FlexibleUNet, features: list[Tensor]) -> list[Tensor]:
    blocks = network.decoder.blocks
    skips = features[:-1][::-1][: network.skip_connect]
    missing = [None] * (len(blocks) - len(skips))
    return decode_chain(blocks, [*missing, *skips[::-1], features[-1]])


def _decode_seg_resnet(network: SegResNet, features: list[Tensor]) -> list[Tensor]:
    blocks = zip(network.up_samples, network.up_layers, strict=True)
    return decode_chain([lambda x, skip, u=up, b=block: b(u(x) + skip) for up, block in blocks], features)


def _decode_by_names(*names: str) -> Callable[[nn.Module, list[Tensor]], list[Tensor]]:
    return lambda network, features: decode_chain([getattr(network, name) for name in names], features)


def _encode_dyn_unet(network: DynUNet, x: Tensor) -> list[Tensor]:
    if network.deep_supervision:
        raise ValueError("DynUNet must have deep_supervision=False, got True: its output would be a stack of images.")
    return encode_chain([network.input_block, *network.downsamples, network.bottleneck], x)


def _downsampling_dyn_unet(network: DynUNet) -> tuple[int, ...]:
    strides = [ensure_tuple_rep(stride, network.spatial_dims) for stride in network.strides]
    return tuple(prod(axis) for axis in zip(*strides, strict=True))


def _encode_swin_unetr(network: SwinUNETR, x: Tensor) -> list[Tensor]:
    hidden = network.swinViT(x, network.normalize)
    skips = [network.encoder1(x), network.encoder2(hidden[0]), network.encoder3(hidden[1]), network.encoder4(hidden[2])]
    return [*skips, hidden[3], network.encoder10(hidden[4])]


NETWORKS: dict[type[nn.Module], Parts] = {
    FlexibleUNet: Parts(
        encoder=("encoder",),
        downsampling=lambda network: 2 ** getattr(network, "levels", network.skip_connect + 1),
        encode=lambda network, x: network.encoder(x),
        decode=_decode_flexible_unet,
        output=lambda network: network.segmentation_head,
    ),
    SegResNet: Parts(
        encoder=("convInit", "dropout", "down_layers"),
        downsampling=lambda network: 2 ** (len(network.blocks_down) - 1),
        encode=lambda network, x: network.encode(x)[1],
        decode=_decode_seg_resnet,
        output=lambda network: network.conv_final if network.use_conv_final else nn.Identity(),
    ),
    BasicUNet: Parts(
        encoder=("conv_0", "down_1", "down_2", "down_3", "down_4"),
        downsampling=lambda network: 16,
        decode=_decode_by_names("upcat_4", "upcat_3", "upcat_2", "upcat_1"),
        output=lambda network: network.final_conv,
        pads=True,
    ),
    DynUNet: Parts(
        encoder=("input_block", "downsamples", "bottleneck"),
        downsampling=_downsampling_dyn_unet,
        encode=_encode_dyn_unet,
        decode=lambda network, features: decode_chain(network.upsamples, features),
        output=lambda network: network.output_block,
    ),
    SwinUNETR: Parts(
        encoder=("swinViT", "encoder1", "encoder2", "encoder3", "encoder4", "encoder10"),
        downsampling=lambda network: 32,  # its decoder only fits a patch_size of 2
        encode=_encode_swin_unetr,
        decode=_decode_by_names("decoder5", "decoder4", "decoder3", "decoder2", "decoder1"),
        output=lambda network: network.out,
    ),
    GenesisUNet: Parts(
        encoder=("down_tr64", "down_tr128", "down_tr256", "down_tr512"),
        downsampling=lambda network: 8,
        decode=_decode_by_names("up_tr256", "up_tr128", "up_tr64"),
        output=lambda network: network.out_tr,
    ),
}


def _encode_nnunet(network: Any, x: Tensor) -> list[Tensor]:
    if hasattr(network, "decoder") and network.decoder.deep_supervision:
        name = type(network).__name__
        raise ValueError(f"{name} must have deep_supervision=False, got True: its output would be a list of images.")
    return list(network.encoder(x))


def _downsampling_nnunet(network: Any) -> tuple[int, ...]:
    return tuple(prod(axis) for axis in zip(*network.encoder.strides, strict=True))


def _decode_nnunet(network: Any, features: list[Tensor]) -> list[Tensor]:
    blocks = zip(network.decoder.transpconvs, network.decoder.stages, strict=True)
    return decode_chain(
        [lambda x, skip, u=up, b=block: b(torch.cat((u(x), skip), 1)) for up, block in blocks], features
    )


_NNUNET = Parts(
    encoder=("encoder",),
    downsampling=_downsampling_nnunet,
    encode=_encode_nnunet,
    decode=_decode_nnunet,
    output=lambda network: network.decoder.seg_layers[-1],
)
OPTIONAL = {  # by the place of the class, so that its package need not be installed
    f"dynamic_network_architectures.architectures.unet.{name}": _NNUNET
    for name in ("PlainConvUNet", "ResidualEncoderUNet")
}

RESNET = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")


def find_parts(network: nn.Module) -> Parts | None:
    """The entry of a network's class, or of the class that it is derived from; None where there is none."""
    kinds = type(network).__mro__
    known = (NETWORKS.get(kind) or OPTIONAL.get(f"{kind.__module__}.{kind.__qualname__}") for kind in kinds)
    return next(filter(None, known), None)


def encoder_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the child modules that a pre-trained encoder fills, in their order of use.

    These are: of a network of ``NETWORKS`` or ``OPTIONAL`` those of its encoder; of MONAI's ``ResNet`` all up to
    ``layer4``; of a ``Sequential`` all before the first adaptive pooling; of any other network none.
    """
    if isinstance(network, nn.Sequential):
        return tuple(name for name, _ in takewhile(lambda child: not _pools(child[1]), network.named_children()))
    parts = find_parts(network)
    known = parts.encoder if parts else RESNET if isinstance(network, ResNet) else ()
    return tuple(name for name in known if hasattr(network, name))


def encoder_parts(network: nn.Module) -> list[nn.Module]:
    """The modules of ``encoder_names``."""
    return [getattr(network, name) for name in encoder_names(network)]


def deepest_layer(network: nn.Module) -> str | None:
    """Name of the layer that gives the last map of a classifier; None where it is not known.

    It is ``layer4`` of any kind of ResNet, and of a ``Sequential`` the part before the first adaptive pooling.
    """
    if hasattr(network, RESNET[-1]):
        return RESNET[-1]
    if isinstance(network, nn.Sequential) and any(map(_pools, network)):
        return next(iter(encoder_names(network)[-1:]), None)
    return None


def _pools(module: nn.Module) -> bool:
    return any(kind in type(module).__name__ for kind in ("AdaptiveAvgPool", "AdaptiveMaxPool"))


def layers(network: nn.Module) -> list[nn.Module]:
    """The parts of a network from input to output: its child modules, in the order in which they are defined."""
    if isinstance(network, FlexibleUNet):
        return [*network.encoder.children(), *network.decoder.blocks, network.segmentation_head]
    return list(network.children())


def mark_pretrained(network: nn.Module, names: Container[str]) -> None:
    """Mark the parameters of these names as pre-trained, for ``pretrained_rate``, and all others as new."""
    for name, parameter in network.named_parameters():
        setattr(parameter, PRETRAINED, name in names)


def loaded_from_file(parameter: nn.Parameter) -> bool:
    """Whether a parameter was marked by ``mark_pretrained``."""
    return getattr(parameter, PRETRAINED, False)
