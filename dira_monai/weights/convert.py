"""Commands that turn published weight files into those of stock networks, and back."""

import re
from collections import Counter
from pathlib import Path

from ..utils.errors import InputError
from .files import read_weights, save_atomic, unwrap
from .layouts import KNOWN, convert, export, stock_network

_OWNER = re.compile(
    r"^(?:(?:module|_orig_mod|model|net|network|encoder_q|base_encoder|backbone|classficationNet|encoder)\.)*(\w+)"
)


def import_weights(file: str | Path, output: str | Path) -> list[str]:
    """Write a published weight file as the plain state dict of a stock network; lines that say what was done.

    Known are the 2D U-Net of DiRA (https://arxiv.org/abs/2204.10437) and other U-Nets of segmentation_models_pytorch
    on a ResNet, the 3D U-Net of Models Genesis and TransVW (whole or its encoder), the ResNets of MoCo, also v3, Barlow
    Twins, SimSiam and torchvision, other ResNets under ``backbone.``, and 3D ResNets. Those of MedicalNet load, but in
    their authors' network layer3 and layer4 have stride 1 and dilation 2 and 4, in MONAI's stride 2 and no dilation,
    so that the features differ; a line says so. The file is a state dict, or a checkpoint with an entry state_dict or
    model; one of another layout is refused, or with encoder or decoder tensors that the stock network lacks.
    """
    _refuse_same(file, output)
    state, rest = unwrap(read_weights(file), file)
    conversion = convert(state)
    if conversion is None:
        known = ", ".join(KNOWN)
        raise InputError(f"{file}: is of no known layout ({known}); its keys begin with {', '.join([*state][:3])}")
    target = stock_network(conversion, file)
    save_atomic(conversion.state, output)
    counts = Counter(_OWNER.findall(key)[0] for key in conversion.dropped)
    dropped = [*(f"{name} ({n})" for name, n in counts.items()), *rest]
    return [
        f"{file}: {conversion.layout}",
        f"converted: {len(conversion.state)} of {len(state)} tensors",
        f"dropped: {', '.join(dropped) or 'nothing'}",
        f"{output}: fits {target}",
        *[conversion.note][: bool(conversion.note)],
    ]


def export_weights(file: str | Path, output: str | Path, layout: str) -> list[str]:
    """Write a ``FlexibleUNet`` or a MONAI ResNet in names that others read; lines that say what was done.

    The file is a state dict of one of these networks in 2D or 3D (``model.pt``, ``encoder.pt``) or a ``checkpoint.pt``,
    the layout torchvision (the encoder as a torchvision ResNet without fc) or smp (``FlexibleUNet`` as ``Unet`` of
    segmentation_models_pytorch); a tensor without a place in it is refused.
    """
    _refuse_same(file, output)
    state, _ = unwrap(read_weights(file), file)
    written = export(state, layout, file)
    save_atomic(written, output)
    return [f"{file}: {len(written)} of {len(state)} tensors", f"{output}: names of {layout}"]


def _refuse_same(file: str | Path, output: str | Path) -> None:
    if Path(file).resolve() == Path(output).resolve():
        raise InputError(f"{output}: the output must be another file than the input")
