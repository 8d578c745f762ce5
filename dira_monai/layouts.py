"""Published layouts of state dicts: recognized by their keys, and turned into stock networks' names and back.

Pure functions; ``published`` reads and writes the files.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.networks.nets.resnet import resnet_params
from torch import Tensor

from .errors import InputError

EXPORTS = ("torchvision", "smp")

_PREFIX = re.compile(r"^(?:module\.|encoder_q\.|backbone\.)+")
_RESNET = r"(?:conv1|bn1|layer[1-4]\.\d+\.(?:conv\d|bn\d|downsample\.[01]))\.\w+"
_STOCK_BLOCK = re.compile(r"(decoder\.blocks\.\d+)\.convs\.conv_([01])\.(conv|adn\.N)\.(\w+)")
_SMP_BLOCK = re.compile(r"(decoder\.blocks\.\d+)\.conv([12])\.([01])\.(\w+)")


@dataclass(frozen=True)
class _Kind:
    """How a layout is told from the others, and which of its keys have a place in a stock network.

    Attributes:
        layout: its name.
        signs: keys that the file has once wrappers are taken off the names.
        kept: pattern of a key with a place; its group is the stock name.
        mark: what one of the whole keys holds.
        axes: of the first sign; None: any number.
    """

    layout: str
    signs: tuple[str, ...]
    kept: str
    mark: str = ""
    axes: int | None = None

    def fits(self, names: Mapping[str, str], state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this layout; ``names`` gives its key for a name without wrappers."""
        signed = all(sign in names for sign in self.signs) and any(self.mark in key for key in state)
        return signed and self.axes in (None, state[names[self.signs[0]]].ndim)


_GENESIS_SIGNS = ("down_tr64.ops.0.conv1.weight", "out_tr.final_conv.weight")
_UNET = rf"encoder\.{_RESNET}|{_SMP_BLOCK.pattern}|segmentation_head\.0\.\w+"
_GENESIS = r"(?:(?:down|up)_tr\d+|out_tr)\..+"
_TRUNK = ("conv1.weight", "layer1.0.conv2.weight", "layer4.0.conv1.weight")
_SHORTCUT = "layer2.0.downsample.0.weight"
_ENCODER = tuple(f"encoder.{key}" for key in _TRUNK)
_DECODER = ("decoder.blocks.0.conv1.0.weight", "decoder.blocks.0.conv1.1.running_var", "segmentation_head.0.weight")
_SMP_SIGNS = (*_ENCODER, *_DECODER)
_KINDS = (
    _Kind("U-Net of segmentation_models_pytorch (DiRA 2D)", _SMP_SIGNS, f"(?P<name>{_UNET})"),
    _Kind("U-Net of Models Genesis or TransVW", _GENESIS_SIGNS, f"(?P<name>{_GENESIS})"),
    _Kind("ResNet of SimSiam", (*_ENCODER, "predictor.0.weight"), rf"encoder\.(?P<name>{_RESNET})"),
    _Kind("ResNet of MoCo", _TRUNK, f"(?P<name>{_RESNET})", mark="encoder_q."),
    _Kind("ResNet of Barlow Twins", _TRUNK, f"(?P<name>{_RESNET})", mark="backbone."),
    _Kind("ResNet of torchvision", _TRUNK, f"(?P<name>{_RESNET})", axes=4),
    _Kind("3D ResNet of MedicalNet", _TRUNK, f"(?P<name>{_RESNET})", axes=5),
)
KNOWN = tuple(kind.layout for kind in _KINDS)


@dataclass(frozen=True)
class Conversion:
    """A published state dict in the names of a stock network.

    Attributes:
        layout: what was recognized.
        state: the tensors that have a place in the stock network, under its names.
        dropped: keys of the file, as they stand there, that have none.
    """

    layout: str
    state: dict[str, Tensor]
    dropped: list[str]


def convert(state: Mapping[str, Tensor]) -> Conversion | None:
    """A state dict of a published layout in the names of a stock network; None for a layout that is not known.

    ResNets come out with the names of ``monai.networks.nets.ResNet``, U-Nets with those of ``FlexibleUNet`` and
    ``GenesisUNet``, in 2D or 3D. ``encoder.`` with neither smp's decoder nor a predictor is FlexibleUNet's own layout.

    Args:
        state: as ``unwrap`` gives it; ``module.``, ``encoder_q.`` and ``backbone.`` may stand in front of the names.
    """
    names = {_PREFIX.sub("", key): key for key in state}
    kind = next((kind for kind in _KINDS if kind.fits(names, state)), None)
    if kind is None or len(names) < len(state):  # two networks in one file, and no telling which is meant
        return None
    places = {name: match["name"] for name in names if (match := re.fullmatch(kind.kept, name))}
    kept = {stock: state[names[name]] for name, stock in places.items()}
    dropped = [key for name, key in names.items() if name not in places]
    return Conversion(kind.layout, smp_to_stock(kept) if kind.signs == _SMP_SIGNS else kept, dropped)


def needs_import(state: Mapping[str, Tensor]) -> bool:
    """Whether the state dict is of a published layout whose names or channel order no stock network has."""
    conversion = convert(state)
    return conversion is not None and not conversion.state.keys() <= state.keys()


def smp_to_stock(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of segmentation_models_pytorch's ``Unet`` on a ResNet in names and channel order of FlexibleUNet.

    The first convolution of an smp block takes the upsampled channels before those of the skip, the stock one after.
    """

    def stock(match: re.Match[str]) -> str:
        return f"{match[1]}.convs.conv_{int(match[2]) - 1}.{('conv', 'adn.N')[int(match[3])]}.{match[4]}"

    return _reorder({_SMP_BLOCK.sub(stock, key): tensor for key, tensor in state.items()}, upsampled_first=True)


def stock_to_smp(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``smp_to_stock``, exact to the bit."""

    def smp(match: re.Match[str]) -> str:
        return f"{match[1]}.conv{int(match[2]) + 1}.{('conv', 'adn.N').index(match[3])}.{match[4]}"

    ordered = _reorder(dict(state), upsampled_first=False)
    return {_STOCK_BLOCK.sub(smp, key): tensor for key, tensor in ordered.items()}


def _reorder(state: dict[str, Tensor], upsampled_first: bool) -> dict[str, Tensor]:
    """Exchange upsampled and skip channels where a decoder block, in stock names, takes them in."""
    upsampled = max(
        tensor.shape[0] for key, tensor in state.items() if key.startswith("encoder.layer4.") and tensor.ndim
    )
    block = 0
    while (key := f"decoder.blocks.{block}.convs.conv_0.conv.weight") in state:
        weight = state[key]
        first = upsampled if upsampled_first else weight.shape[1] - upsampled
        state[key] = torch.cat(weight.tensor_split([first], dim=1)[::-1], dim=1)
        upsampled, block = weight.shape[0], block + 1
    return state


def export(state: Mapping[str, Tensor], layout: str, file: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``FlexibleUNet`` or a MONAI ResNet in 2D or 3D, in names that others read.

    Args:
        state: the network's state dict.
        layout: torchvision (the encoder as a torchvision ResNet without fc) or smp (``FlexibleUNet`` as ``Unet`` of
            segmentation_models_pytorch).
        file: named in errors.

    Raises:
        InputError: if the layout is unknown, or lacks a place for a tensor of the network.
    """
    if layout not in EXPORTS:
        raise InputError(f"layout must be {' or '.join(EXPORTS)}, got {layout}")
    prefix = "encoder." if layout == "smp" or any(key.startswith("encoder.") for key in state) else ""
    missing = [prefix + key for key in _TRUNK if prefix + key not in state]
    if missing:
        raise InputError(f"{file}: {layout} takes a FlexibleUNet or a ResNet, but this has no {missing[0]}")
    if prefix + _SHORTCUT not in state:
        raise InputError(f"{file}: {layout} takes shortcuts with weights (type B), but this ResNet has none (type A)")
    if layout == "smp":
        written, place, needed = stock_to_smp(state), _UNET, _SMP_SIGNS
    else:
        encoder = [key for key in state if key.startswith(prefix) and not key.startswith("fc.")]
        written, place, needed = {key.removeprefix(prefix): state[key] for key in encoder}, _RESNET, _TRUNK
    wrong = [key for key in written if not re.fullmatch(place, key) or key.endswith("downsample.0.bias")]
    wrong += [key for key in needed if key not in written]
    if wrong:
        raise InputError(f"{file}: {layout} and this network do not have the same tensors, first {wrong[0]}")
    return written


def stock_network(state: Mapping[str, Tensor], file: str | Path) -> str:
    """The network that a converted state dict fits, as Python to write.

    Raises:
        InputError: if it is a ResNet that MONAI lacks; names ``file``.
    """
    stem = next(state[key] for key in (_TRUNK[0], _ENCODER[0], _GENESIS_SIGNS[0]) if key in state)
    dims, channels = stem.ndim - 2, stem.shape[1]
    if _GENESIS_SIGNS[0] in state:
        out_channels = state[_GENESIS_SIGNS[1]].shape[0]
        return f"GenesisUNet(spatial_dims={dims}, in_channels={channels}, out_channels={out_channels})"
    if _TRUNK[0] in state:
        name, shortcut = _resnet(state, "", file)
        bias = _SHORTCUT.replace("weight", "bias") in state
        return (
            f"{name}(spatial_dims={dims}, n_input_channels={channels}, conv1_t_stride=2, "
            f"shortcut_type='{shortcut}', bias_downsample={bias}, feed_forward=False)"
        )
    name, shortcut = _resnet(state, "encoder.", file)
    if shortcut != resnet_params[name][2]:
        return f"no FlexibleUNet, whose {name} has shortcuts without weights, but {name}(shortcut_type='{shortcut}')"
    widths = tuple(state[key].shape[0] for key in state if key.endswith("convs.conv_0.conv.weight"))
    out_channels = state["segmentation_head.0.weight"].shape[0]
    return (
        f"FlexibleUNet({channels}, {out_channels}, '{name}', spatial_dims={dims}, decoder_channels={widths}, "
        f"pre_conv=None, norm=('batch', {{'eps': 1e-5, 'momentum': 0.1}}))"
    )


def _resnet(state: Mapping[str, Tensor], prefix: str, file: str | Path) -> tuple[str, str]:
    """Name and shortcut type of the ResNet in a state dict."""
    found = [re.match(rf"{prefix}layer([1-4])\.(\d+)\.conv1\.weight", key) for key in state]
    blocks = [len({match[2] for match in found if match and match[1] == str(layer)}) for layer in (1, 2, 3, 4)]
    kind = "bottleneck" if f"{prefix}layer1.0.conv3.weight" in state else "basic"
    known = [name for name, row in resnet_params.items() if [*row[:2]] == [kind, blocks]]
    width = tuple(state[f"{prefix}layer1.0.conv2.weight"].shape[:2])
    if not known or width != (64, 64):
        raise InputError(f"{file}: MONAI lacks a ResNet of {kind} blocks {blocks}, the first with {width} channels")
    return known[0], "B" if prefix + _SHORTCUT in state else "A"
