"""Pre-trained weights put into a network, with a report of what went where; never in silence."""

import json
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor, nn

from ..bundle.run_json import find_record, read_starts
from ..bundle.running_config import running_config
from ..networks.encoder_decoder import output_layer
from ..networks.encoder_parts import find_parts, mark_pretrained
from ..utils.distributed import rank
from ..utils.errors import InputError
from .files import is_nnunet, read_weights, unwrap, without_wrappers
from .layouts import convert
from .match import Match, describe_match, first, match_weights, percent, tied_names
from .named import find_named, networks_of


def load_pretrained(
    network: nn.Module,
    path: str | Path | None,
    *,
    minimum_coverage: float = 0.9,
    checkpoint: str | Path | None = None,
) -> nn.Module:
    """The same network with the weights of a file, after a printed report; process 0 prints.

    ``FlexibleUNet`` fills a MONAI ResNet of the same depth and the other way round (with equal features if the ResNet
    has ``conv1_t_stride=2``, ``bias_downsample=False`` and ``shortcut_type`` "B", for resnet18 and resnet34 "A");
    ``BasicUNet`` and ``GenesisUNet`` fill a ``Sequential`` that begins with the stages of their encoder, and back.
    Where a tensor of the network has several names, one of them in the file is enough.
    Other input channels are adapted so that a gray image, equal in all channels, has the same features. A head of
    other width stays new, and so does the output layer where a bundle with classes takes weights of a pre-training,
    whose own restores images.

    Args:
        network: not wrapped. Its encoder is what ``encoder_names`` gives, and everything where that is none.
        path: state dict (``model.pt``, ``encoder.pt``, safetensors), ``checkpoint.pt``, folder of a run or bundle,
            archive (.zip), or the name of weights that come with the package; None: the network stays as it is.
        minimum_coverage: least ``Match.encoder_coverage``, from 0 to 1. 0 loads whatever fits; with more, every
            convolution and linear layer of the encoder must fit too (``Match.holes``): a ResNet-18 whose shortcuts have
            weights covers 98% of one whose shortcuts have none, and still gives other features.
        checkpoint: what the run resumes or starts from; where that file exists, its weights come in place of those of
            ``path``, which is not read.

    Raises:
        InputError: if the file cannot be read, must be imported first, or covers too little; the network is untouched.
    """
    if not isinstance(minimum_coverage, Real) or not 0 <= minimum_coverage <= 1:
        raise InputError(f"minimum_coverage must lie in [0, 1], got {minimum_coverage!r}")
    resumed = checkpoint is not None and Path(checkpoint).is_file()
    if path is None or resumed:
        weights = f"all weights come from {checkpoint}" if resumed else "the network starts from random weights"
        _say([f"pretrained: {path or 'none'}, {weights}"])
        return network
    if not str(path).strip():
        raise InputError("pretrained is empty; give a file, or None ('$None' on the command line) for random weights")
    state, note = _read(path)
    if restoring := [name for name in _output_names(network) if name in state] if _is_other_task(path) else []:
        state = {name: tensor for name, tensor in state.items() if name not in restoring}
        note.append(f"  note: {first(restoring)} of the file restore images and stay new")
    match = match_weights(network, state)
    if match.encoder_coverage < minimum_coverage:
        raise InputError(
            f"{path}: covers {percent(match.encoder_coverage)} of the encoder of this {type(network).__name__} where "
            f"minimum_coverage is {minimum_coverage:.1%}; do not fit: {first(match.gaps)}; "
            f"the file begins with {first(state)}; give {_network_for(path)}"
        )
    if match.holes and minimum_coverage > 0:
        raise InputError(
            f"{path}: the features of this {type(network).__name__} would not be those of the file, as layers of the "
            f"encoder do not fit: {first(match.holes)}; minimum_coverage 0 loads what fits"
        )
    _refuse_contradiction(network, match, path)
    network.load_state_dict(match.tensors, strict=False)
    mark_pretrained(network, match.tensors)
    _say([*describe_match(match, f"{path} -> {type(network).__name__}"), *note])
    return network


def _network_for(path: str | Path) -> str:
    """What to give so that weights fit."""
    if file := find_named(path):
        values = [f"for {bundle} {json.dumps(network)}" for bundle, network in networks_of(file).items()]
        return f"the values of their network: {'; '.join(values)}"
    return "the network_def, features or backbone of the pre-training"


def _read(path: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict of a file, and what the user should know of it; one to be converted is refused."""
    content = read_weights(path)
    state = without_wrappers(unwrap(content, path)[0])
    conversion = convert(state)
    renamed = conversion is not None and not conversion.state.keys() <= state.keys()
    if is_nnunet(content) or renamed or _is_of_imagenet(state):
        raise InputError(
            f"{path}: has the layout of published weights; convert it first with "
            f"python -m dira_monai import-weights {path} --output model.pt"
        )
    return state, [conversion.note] if conversion is not None and conversion.note else []


def _is_other_task(path: str | Path) -> bool:
    """Whether a bundle with classes runs and ``run.json`` beside the weights is that of a pre-training."""
    if "class_names" not in (running_config() or {}):
        return False
    file = Path(path, "models", "model.pt") if Path(path).is_dir() else Path(path)
    starts = read_starts(find_record(file))
    return bool(starts) and "restoration_weight" in (starts[-1].get("config") or {})


def _output_names(network: nn.Module) -> list[str]:
    """Names of the tensors of the layer behind the decoder; none where the network has no decoder that is known."""
    if find_parts(network) is None:
        return []
    own = {id(tensor) for tensor in output_layer(network).state_dict(keep_vars=True).values()}
    return [name for name, tensor in network.state_dict(keep_vars=True).items() if id(tensor) in own]


def _is_of_imagenet(state: Mapping[str, Tensor]) -> bool:
    """Whether a ResNet has the 1000 classes of ImageNet: its names are those of MONAI, its kernels row, column."""
    head = state.get("fc.weight")
    return head is not None and head.shape[0] == 1000 and "conv1.weight" in state


def _refuse_contradiction(network: nn.Module, match: Match, path: str | Path) -> None:
    """Refuse a file that gives one tensor different values under different names; torch would take the last one."""
    for name, tied in tied_names(network.state_dict(keep_vars=True)).items():
        for other in tied:
            given = [match.tensors[key] for key in (name, other) if key in match.tensors]
            if len(given) == 2 and not torch.equal(*given):
                raise InputError(
                    f"{path}: {name} and {other} are one tensor of the {type(network).__name__}, but have different "
                    f"values in the file; give one of the names alone"
                )


def _say(lines: Sequence[str]) -> None:
    if rank() == 0:
        print("\n".join(lines))
