"""Commands that turn published weight files into those of stock networks, and back."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..utils.errors import InputError
from .files import NNUNET, is_nnunet, read_weights, save_atomic, unwrap, without_wrappers
from .layouts import KNOWN, PREFIXES, convert, export, has_pictures, stock_network
from .nnunet import MIRRORED, from_nnunet, nnunet_network, to_nnunet

TURNED = "2D kernels were turned between row, column, as others read pictures, and the axes x, y of MONAI"
_OWNER = re.compile(rf"^(?:(?:{PREFIXES}|encoder)\.)*(\w+)")


def import_weights(file: str | Path, output: str | Path) -> list[str]:
    """Write a published weight file as the plain state dict of a stock network; lines that say what was done.

    Known are the 2D U-Net of DiRA (https://arxiv.org/abs/2204.10437) and other U-Nets of segmentation_models_pytorch
    on a ResNet, the 3D U-Net of Models Genesis and TransVW (whole or its encoder), the ResNets of MoCo, also v3, Barlow
    Twins, SimSiam and torchvision, other ResNets under ``backbone.``, and 3D ResNets. Those of MedicalNet load, but in
    their authors' network layer3 and layer4 have stride 1 and dilation 2 and 4, in MONAI's stride 2 and no dilation,
    so that the features differ; a line says so. Of ``SwinUNETR`` the files of MONAI's SwinUNETR-SSL and of VoCo are
    known, and of nnU-Net and nnssl (OpenMind) the checkpoints of ``PlainConvUNet`` and ``ResidualEncoderUNet``, see
    ``weights.nnunet``. 2D kernels are turned from row, column to the axes x, y, in which MONAI reads pictures. The file
    is a state dict, or a checkpoint with one as an entry (``files.WRAPPERS``); one of another layout is refused, or
    with encoder or decoder tensors that the stock network lacks.
    """
    _refuse_same(file, output)
    content = read_weights(file)
    state, rest = unwrap(content, file)
    nnunet = is_nnunet(content)
    conversion = from_nnunet(without_wrappers(state), file) if nnunet else convert(state)
    if conversion is None:
        known = ", ".join((*KNOWN, "checkpoint of nnU-Net or nnssl"))
        raise InputError(f"{file}: is of no known layout ({known}); its keys begin with {', '.join([*state][:3])}")
    target = nnunet_network(conversion.state, file) if nnunet else stock_network(conversion, file)
    save_atomic(conversion.state, output)
    counts = Counter(_OWNER.findall(key)[0] for key in conversion.dropped)
    dropped = [*(f"{name} ({n})" for name, n in counts.items()), *rest]
    return [
        f"{file}: {conversion.layout}",
        f"converted: {len(conversion.state)} of {len(state)} tensors",
        f"dropped: {', '.join(dropped) or 'nothing'}",
        f"{output}: fits {target}",
        *[conversion.note][: bool(conversion.note)],
        *([f"note: {TURNED}"] if conversion.turned else []),
    ]


def export_weights(
    file: str | Path, output: str | Path, layout: str, patch_size: Sequence[int] | None = None
) -> list[str]:
    """Write the weights of a network in names that others read; lines that say what was done.

    The file is a state dict (``model.pt``, ``encoder.pt``) or a ``checkpoint.pt``; a tensor without a place in the
    layout is refused.

    Args:
        file: weights of a ``FlexibleUNet``, a MONAI ResNet, or for nnunet of a network of nnU-Net.
        output: file to write.
        layout: torchvision (the encoder as a torchvision ResNet without fc), smp (``FlexibleUNet`` as ``Unet`` of
            segmentation_models_pytorch), timm (as torchvision, in 2D alone) or nnunet (see ``weights.nnunet``). 2D
            kernels are turned from the axes x, y, in which MONAI reads pictures, to row, column.
        patch_size: of the pre-training along x, y, z; with it, nnunet has the plan by which nnU-Net adapts nnssl's
            checkpoints.
    """
    _refuse_same(file, output)
    state = without_wrappers(unwrap(read_weights(file), file)[0])
    if layout == "nnunet":
        content = to_nnunet(state, file, patch_size)
        written, more = content[NNUNET], [*(f"{output}: holds {name}" for name in content), MIRRORED]
    else:
        content = written = export(state, layout, file)
        more = [f"{output}: names of {layout}"]
        more += [f"note: {TURNED}"] if has_pictures(written) else []
    save_atomic(content, output)
    return [f"{file}: {len(written)} of {len(state)} tensors", *more]


def _refuse_same(file: str | Path, output: str | Path) -> None:
    if Path(file).resolve() == Path(output).resolve():
        raise InputError(f"{output}: the output must be another file than the input")
