"""Published layouts of state dicts: recognized by their keys, and turned into stock networks' names and back.

Pure functions; ``weights.convert`` reads and writes the files.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monai.networks.nets.resnet import resnet_params
from torch import Tensor

from ..utils.errors import InputError
from .smp import SMP_BLOCK, block_keys, smp_to_stock, stock_to_smp, width
from .swin import ALONE, SSL_PLACES, SSL_SIGNS, STEM, VOCO_PLACES, VOCO_SIGNS, ssl_to_stock, swin_network

EXPORTS = ("torchvision", "smp", "timm")
PREFIXES = "module|_orig_mod|model|net|network|encoder_q|base_encoder|backbone|student|swin_vit|classficationNet"
_PREFIX = re.compile(rf"^(?:(?:{PREFIXES})\.)+")
_RESNET = r"(?:conv1|bn1|layer[1-4]\.\d+\.(?:conv\d|bn\d|downsample\.[01]))\.\w+"


@dataclass(frozen=True)
class _Kind:
    """How a layout is recognized, and which of its keys have a place in a stock network."""

    layout: str  # its name
    signs: tuple[str, ...]  # keys that the file has once wrappers are taken off the names
    kept: str  # pattern of a key with a place; its group is the stock name
    mark: str = ""  # what one of the whole keys holds
    axes: int | None = None  # of the first sign; None: any number
    gray: bool = False  # whether the first sign has one input channel and the file no fc
    body: str = r"(?:conv1|bn1|layer\d)\..+"  # pattern of the keys that make the features and may not be dropped
    note: str = ""  # what the user should know of its features; empty: nothing
    rows: bool = True  # whether pictures have the axes row, column where it is trained
    stock: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict  # kept tensors to those of the stock network

    def fits(self, names: Mapping[str, str], state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this layout; ``names`` gives its key for a name without wrappers."""
        if not all(sign in names for sign in self.signs) or not any(self.mark in key for key in state):
            return False
        stem = state[names[self.signs[0]]]
        return self.axes in (None, stem.ndim) and not (self.gray and (stem.shape[1] > 1 or "fc.weight" in names))


_GENESIS_SIGNS = ("down_tr64.ops.0.conv1.weight", "down_tr512.ops.1.conv1.weight")
_GENESIS_HEAD = "out_tr.final_conv.weight"
_UNET = rf"encoder\.{_RESNET}|{SMP_BLOCK.pattern}|segmentation_head\.0\.\w+"
_GENESIS = r"(?:(?:down|up)_tr\d+|out_tr)\..+"
_TRUNK = ("conv1.weight", "layer1.0.conv2.weight", "layer4.0.conv1.weight")
_SHORTCUT = "layer2.0.downsample.0.weight"
_ENCODER = tuple(f"encoder.{key}" for key in _TRUNK)
_DECODER = ("decoder.blocks.0.conv1.0.weight", "decoder.blocks.0.conv1.1.running_var", "segmentation_head.0.weight")
_SMP_SIGNS = (*_ENCODER, *_DECODER)
_BARLOW = ("projector.0.weight", "bn.running_mean")
_PLAIN = f"(?P<name>{_RESNET})"
_SIMSIAM = rf"encoder\.{_PLAIN}"
_MEDICALNET = "3D ResNet of MedicalNet"

_DILATED = (
    "note: layer3 and layer4 of MedicalNet have stride 1 and dilation 2 and 4, those of MONAI's ResNet stride 2 and "
    "no dilation: the weights fit, the features differ"
)

_KINDS = (
    _Kind(
        "U-Net of segmentation_models_pytorch (DiRA 2D)",
        _SMP_SIGNS,
        f"(?P<name>{_UNET})",
        body=r"(?:en|de)coder\..+",
        stock=smp_to_stock,
    ),
    _Kind("SwinUNETR-SSL of MONAI", SSL_SIGNS, SSL_PLACES, body=SSL_PLACES, note=ALONE, rows=False, stock=ssl_to_stock),
    _Kind("SwinUNETR of VoCo", VOCO_SIGNS, VOCO_PLACES, body=VOCO_PLACES, rows=False),
    _Kind("U-Net of Models Genesis or TransVW", _GENESIS_SIGNS, f"(?P<name>{_GENESIS})"),
    _Kind("ResNet of SimSiam", (*_ENCODER, "predictor.0.weight"), _SIMSIAM, body=rf"encoder\.{_Kind.body}"),
    _Kind("ResNet of MoCo", _TRUNK, _PLAIN, mark="encoder_q."),
    _Kind("ResNet of MoCo v3", _TRUNK, _PLAIN, mark="base_encoder."),
    _Kind("ResNet of Barlow Twins", (*_TRUNK, *_BARLOW), _PLAIN, mark="backbone."),
    _Kind("ResNet under backbone.", _TRUNK, _PLAIN, mark="backbone."),
    _Kind("ResNet of torchvision", _TRUNK, _PLAIN, axes=4),
    _Kind(_MEDICALNET, _TRUNK, _PLAIN, axes=5, gray=True, note=_DILATED),
    _Kind("3D ResNet; the stride of its first convolution is not in the file", _TRUNK, _PLAIN, axes=5),
)

KNOWN = tuple(kind.layout for kind in _KINDS)


@dataclass(frozen=True)
class Conversion:
    """A published state dict in the names of a stock network."""

    layout: str  # what was recognized
    state: dict[str, Tensor]  # the tensors that have a place in the stock network, under its names
    dropped: list[str]  # keys of the file, as they stand there, that have none
    lost: list[str]  # those of them without which the features are others
    note: str  # what the user should know of the features; empty: nothing
    turned: bool = False  # whether 2D kernels were turned from row, column to x, y


def convert(state: Mapping[str, Tensor]) -> Conversion | None:
    """A state dict of a published layout in the names of a stock network; None for a layout that is not known.

    ResNets come out with the names of ``monai.networks.nets.ResNet``, U-Nets with those of ``FlexibleUNet``,
    ``GenesisUNet`` and ``SwinUNETR``, in 2D or 3D. ``encoder.`` with neither smp's decoder nor a predictor is
    FlexibleUNet's own layout. 2D kernels are turned from row, column to the axes x, y, in which MONAI reads pictures.
    Before the names may stand what ``_PREFIX`` lists.
    """
    names = {_PREFIX.sub("", key): key for key in state}
    kind = next((kind for kind in _KINDS if kind.fits(names, state)), None)
    if kind is None or len(names) < len(state):  # two networks in one file, and no telling which is meant
        return None
    places = {name: match["name"] for name in names if (match := re.fullmatch(kind.kept, name))}
    kept = {stock: state[names[name]] for name, stock in places.items()}
    dropped = {name: key for name, key in names.items() if name not in places}
    lost = [key for name, key in dropped.items() if re.fullmatch(kind.body, name)]
    stock = kind.stock(kept)
    turn = kind.rows and has_pictures(stock)
    return Conversion(
        kind.layout, turn_pictures(stock) if turn else stock, [*dropped.values()], lost, kind.note, turned=turn
    )


def has_pictures(state: Mapping[str, Tensor]) -> bool:
    """Whether a network has 2D kernels."""
    return any(tensor.ndim == 4 for tensor in state.values())


def turned(tensor: Tensor) -> Tensor:
    """A kernel with its spatial axes in the opposite order."""
    return tensor.permute(0, 1, *range(tensor.ndim - 1, 1, -1)).contiguous() if tensor.ndim > 3 else tensor


def turn_pictures(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with its 2D kernels turned between row, column and x, y; those of volumes stay."""
    return {name: turned(tensor) if tensor.ndim == 4 else tensor for name, tensor in state.items()}


def export(state: Mapping[str, Tensor], layout: str, file: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``FlexibleUNet`` or a MONAI ResNet in names that others read, see ``export_weights``."""
    if layout not in EXPORTS:
        raise InputError(f"layout must be {', '.join(EXPORTS)} or nnunet, got {layout}")
    prefix = "encoder." if layout == "smp" or any(key.startswith("encoder.") for key in state) else ""
    missing = [prefix + key for key in _TRUNK if prefix + key not in state]
    if missing:
        raise InputError(f"{file}: {layout} takes a FlexibleUNet or a ResNet, but this has no {missing[0]}")
    if layout == "timm" and state[prefix + _TRUNK[0]].ndim != 4:
        raise InputError(f"{file}: timm has networks in 2D alone, but this one is in 3D")
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
    return turn_pictures(written)


def stock_network(conversion: Conversion, file: str | Path) -> str:
    """The network that a converted state dict fits, as Python to write; a question mark for what no tensor tells.

    A ResNet or a decoder that MONAI lacks is refused, and so are tensors without a place that make the features.
    """
    state = conversion.state
    if conversion.lost:
        raise InputError(
            f"{file}: {conversion.layout} with {conversion.lost[0]}, for which the stock network has no place and "
            f"without which its features are others"
        )
    if STEM in state:
        return swin_network(state)
    stem = next(state[key] for key in (_TRUNK[0], _ENCODER[0], _GENESIS_SIGNS[0]) if key in state)
    dims, channels = stem.ndim - 2, stem.shape[1]
    if _GENESIS_SIGNS[0] in state:
        whole = _GENESIS_HEAD in state
        out_channels = f", out_channels={state[_GENESIS_HEAD].shape[0]}" if whole else ""
        network = "GenesisUNet" if whole else "the encoder of GenesisUNet"
        return f"{network}(spatial_dims={dims}, in_channels={channels}{out_channels})"
    if _TRUNK[0] in state:
        name, shortcut = _resnet(state, "", file)
        bias = _SHORTCUT.replace("weight", "bias") in state
        stride = "2" if dims == 2 or conversion.layout == _MEDICALNET else "?"
        return (
            f"{name}(spatial_dims={dims}, n_input_channels={channels}, conv1_t_stride={stride}, "
            f"shortcut_type='{shortcut}', bias_downsample={bias}, feed_forward=False)"
        )
    name, shortcut = _resnet(state, "encoder.", file)
    widths = _decoder_widths(state, file)
    if shortcut != resnet_params[name][2]:
        return f"no FlexibleUNet, whose {name} has shortcuts without weights, but {name}(shortcut_type='{shortcut}')"
    classes = state["segmentation_head.0.weight"].shape[0]
    return (
        f"FlexibleUNet({channels}, {classes}, '{name}', spatial_dims={dims}, decoder_channels={widths}, "
        f"pre_conv=None, norm=('batch', {{'eps': 1e-5, 'momentum': 0.1}}))"
    )


def _decoder_widths(state: Mapping[str, Tensor], file: str | Path) -> tuple[int, ...]:
    """Channels that the decoder blocks give, once it is sure which of those that they take are upsampled."""
    blocks = [state[key] for key in block_keys(state)]
    widths, taken = [block.shape[0] for block in blocks], [block.shape[1] for block in blocks]
    *skips, deepest = [width(state, f"encoder.{part}.") for part in ("conv1", "layer1", "layer2", "layer3", "layer4")]
    upsampled = [deepest, *widths[:-1]]
    wanted = [own + skip for own, skip in zip(upsampled, [*skips[::-1], 0], strict=False)]
    if len(blocks) != 5 or taken != wanted:
        raise InputError(
            f"{file}: the blocks of its decoder take {taken} channels where those of a FlexibleUNet are five "
            f"and take upsampled and skip channels, {wanted}"
        )
    return tuple(widths)


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
