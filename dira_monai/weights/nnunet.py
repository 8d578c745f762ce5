"""The networks of nnU-Net: weights of nnU-Net and nnssl in, checkpoints for nnU-Net out.

Known are its ``PlainConvUNet`` and ``ResidualEncoderUNet``.

nnU-Net's arrays have the axes z, y, x, those of MONAI x, y, z, so that each kernel is turned around. nnU-Net's default
readers do not turn images to one orientation: features are equal for files that are stored as RAS, the ``axcodes`` of
the bundles, and those of a mirrored image where a file stores an axis the other way round. Its NibabelIOWithReorient
(``overwrite_image_reader_writer`` in dataset.json) reads every file as RAS.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..utils.errors import InputError
from .layouts import Conversion, turned

PACKAGE = "dynamic_network_architectures.architectures.unet"
MIRRORED = (
    "note: kernels were turned between x, y, z and nnU-Net's z, y, x; its default reader does not reorient, so that "
    "files not stored as RAS are seen mirrored along the axes that differ: NibabelIOWithReorient reads all as RAS"
)
_ENCODER = re.compile(r"^(?:decoder\.|online_)?encoder\.(?=stem\.|stages\.)")
_RESIDUAL, _PLAIN = "encoder.stem.convs.0", "encoder.stages.0.0.convs.0"
_PLACE = re.compile(r"(?:encoder\.(?:stem|stages)|decoder\.(?:stages|transpconvs|seg_layers))\..+")


def from_nnunet(state: Mapping[str, Tensor], file: str | Path) -> Conversion:
    """The network in a checkpoint of nnU-Net or nnssl, each tensor under its first name, kernels with axes x, y, z."""
    kept: dict[str, Tensor] = {}
    dropped = []
    for key, tensor in state.items():
        name = _first_name(key)
        if not _PLACE.fullmatch(name):
            dropped.append(key)
        elif not torch.equal(kept.setdefault(name, tensor), tensor):
            raise InputError(f"{file}: {key} and {name} are one tensor, but have different values")
    _stem(kept, file)
    layout = f"{_kind(kept)} of nnU-Net or nnssl"
    return Conversion(layout, {name: turned(tensor) for name, tensor in kept.items()}, dropped, [], MIRRORED)


def to_nnunet(state: Mapping[str, Tensor], file: str | Path, patch_size: Sequence[int] | None) -> dict[str, Any]:
    """What nnU-Net reads as ``-pretrained_weights``; with a patch size also the plan by which nnssl's weights adapt.

    Every tensor has all names that it has in the network, since nnU-Net asks for all of them.
    """
    kept = from_nnunet(state, file).state
    if not any(name.startswith("decoder.") for name in kept):
        raise InputError(f"{file}: nnunet takes a whole network, model.pt or checkpoint.pt, but this has no decoder")
    norm = 2 if any(".all_modules.2." in key for key in state) else 1  # 2 behind a dropout
    weights = {alias: tensor for name, tensor in kept.items() for alias in _all_names(name, norm)}
    content: dict[str, Any] = {"network_weights": weights}
    if patch_size is not None:
        dims = _stem(kept, file).ndim - 2
        if len(patch_size) != dims or not all(isinstance(n, int) and n > 0 for n in patch_size):
            raise InputError(f"patch_size must be {dims} positive whole numbers, got {patch_size}")
        content["nnssl_adaptation_plan"] = _adaptation_plan(kept, [*patch_size][::-1], file)
    return content


def nnunet_network(state: Mapping[str, Tensor], file: str | Path) -> str:
    """The network that a converted state dict fits, as Python to write; a question mark for what no tensor tells."""
    options = _architecture(state, file)
    channels = _stem(state, file).shape[1]
    text = ", ".join(f"{name}={value}" for name, value in options.items())
    return f"{PACKAGE}.{_kind(state)}(input_channels={channels}, {text})"


def _first_name(key: str) -> str:
    """The name of a tensor that comes first in the network: of the encoder, and of the layer itself."""
    name = _ENCODER.sub("encoder.", key, count=1)
    name = re.sub(r"\.all_modules\.0\.", ".conv.", name)
    return re.sub(r"\.all_modules\.[12]\.", ".norm.", name)


def _all_names(name: str, norm: int) -> list[str]:
    """All names that a tensor has in a network of nnU-Net, from its first one; ``norm`` is the norm's place."""
    sequence = re.sub(r"\.conv\.(?=\w+$)", ".all_modules.0.", name)
    sequence = re.sub(r"\.norm\.(?=\w+$)", f".all_modules.{norm}.", sequence)
    names = dict.fromkeys((name, sequence))
    return [*names, *(f"decoder.{alias}" for alias in names if name.startswith("encoder."))]


def _kind(state: Mapping[str, Tensor]) -> str:
    return "ResidualEncoderUNet" if f"{_RESIDUAL}.conv.weight" in state else "PlainConvUNet"


def _stem(state: Mapping[str, Tensor], file: str | Path) -> Tensor:
    for stem in (_RESIDUAL, _PLAIN):
        if f"{stem}.conv.weight" in state:
            return state[f"{stem}.conv.weight"]
    raise InputError(
        f"{file}: holds no PlainConvUNet or ResidualEncoderUNet; other networks, such as those of MONAI, have layers "
        f"that nnU-Net's plans cannot express"
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers stand where the pattern has its group."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _architecture(state: Mapping[str, Tensor], file: str | Path) -> dict[str, Any]:
    """Arguments of the class, as plain values; strides are those of the decoder's transposed convolutions."""
    residual, stem = _kind(state) == "ResidualEncoderUNet", _stem(state, file)
    stages = _count(state, r"encoder\.stages\.(\d+)\.")
    block = "encoder.stages.{}.blocks.0.conv1.conv.weight" if residual else "encoder.stages.{}.0.convs.0.conv.weight"
    kernels = [state[block.format(stage)] for stage in range(stages)]
    ups = [state.get(f"decoder.transpconvs.{stage}.weight") for stage in range(stages - 2, -1, -1)]
    dims = stem.ndim - 2
    layer = r"encoder\.stages\.{}\.blocks\.(\d+)\." if residual else r"encoder\.stages\.{}\.0\.convs\.(\d+)\."
    head = next((tensor for key, tensor in state.items() if re.match(r"decoder\.seg_layers\.\d+\.weight", key)), None)
    norm = "BatchNorm" if any(key.endswith("running_mean") for key in state) else "InstanceNorm"
    strides: list[Any] = [[1] * dims, *("?" if up is None else [*up.shape[2:]] for up in ups)]
    return {
        "n_stages": stages,
        "features_per_stage": [kernel.shape[0] for kernel in kernels],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": [[*kernel.shape[2:]] for kernel in kernels],
        "strides": strides,
        "n_blocks_per_stage" if residual else "n_conv_per_stage": [
            _count(state, layer.format(stage)) for stage in range(stages)
        ],
        "num_classes": "?" if head is None else head.shape[0],
        "n_conv_per_stage_decoder": [
            _count(state, rf"decoder\.stages\.{stage}\.convs\.(\d+)\.") or "?" for stage in range(stages - 1)
        ],
        "conv_bias": f"{_RESIDUAL if residual else _PLAIN}.conv.bias" in state,
        "norm_op": f"torch.nn.modules.{norm.lower()}.{norm}{dims}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": any(key.endswith(".norm.weight") for key in state)},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def _adaptation_plan(state: Mapping[str, Tensor], patch_size: list[int], file: str | Path) -> dict[str, Any]:
    """Describe the checkpoint as nnssl does, with the axes of nnU-Net."""
    options = _architecture(state, file)
    del options["num_classes"]
    stem = _RESIDUAL if _kind(state) == "ResidualEncoderUNet" else _PLAIN
    return {
        "architecture_plans": {
            "arch_class_name": f"{PACKAGE}.{_kind(state)}",
            "arch_kwargs": options | {"dropout_op": None, "dropout_op_kwargs": None},
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "pretrain_plan": {"configurations": {"3d_fullres": {"patch_size": patch_size, "spacing": None}}},
        "pretrain_num_input_channels": _stem(state, file).shape[1],
        "recommended_downstream_patchsize": patch_size,
        "key_to_encoder": "encoder.stages",
        "key_to_stem": stem.removesuffix(".convs.0").removesuffix(".0"),
        "keys_to_in_proj": [f"{stem}.conv", f"{stem}.all_modules.0"],
        "key_to_lpe": None,
    }
