"""Pre-trained weights put into a network, with a report of what went where; never in silence."""

import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path

import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..networks.encoder_parts import NETWORKS, encoder_names
from ..networks.genesis_unet import GenesisUNet
from ..utils.distributed import rank
from ..utils.errors import InputError
from .files import read_weights, unwrap, without_wrappers
from .layouts import convert

MAX_KEYS = 3
PREFIXES = ("model.", "net.", "network.", "backbone.")  # of a network that is a part of a module, as in Lightning's
Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Match:
    """What of a state dict goes where in a network.

    Coverages are shares of the floating-point elements. Those that only the file has in its encoder count as not
    matched, so that a deeper encoder does not pass for a shallow one. ``holes`` are the gaps that are weights of
    convolutions or linear layers, tensors of two axes or more: one changes all features, however small it is. Other
    shapes count only where ``encoder_names`` knows the encoder, since elsewhere they may be those of the head.
    """

    rule: str  # how names of the file were turned into those of the network
    tensors: dict[str, Tensor]  # what to load, under the names of the network
    mismatched: dict[str, Shapes]  # shapes that differ, in the file and in the network, under the names of the network
    new: list[str]  # names of the network that the file lacks
    unused: list[str]  # names of the file that the network lacks
    gaps: list[str]  # what keeps the encoder from a coverage of 1, in words, a tensor each
    holes: list[str]
    adaptation: str  # what was done to the input channels of the first convolution; empty: nothing
    encoder_coverage: float
    coverage: float  # of the whole network


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
    other width stays new.

    Args:
        network: not wrapped. Its encoder is what ``encoder_names`` gives, and everything where that is none.
        path: state dict (``model.pt``, ``encoder.pt``), ``checkpoint.pt``, folder of a run or bundle, or archive
            (.zip); None: the network stays as it is.
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
    state = without_wrappers(unwrap(read_weights(path), path)[0])
    conversion = convert(state)
    if conversion is not None and not conversion.state.keys() <= state.keys():  # no stock network has its names
        raise InputError(
            f"{path}: has the names of a published layout; convert it first with "
            f"python -m dira_monai import-weights {path} --output model.pt"
        )
    match = match_weights(network, state)
    if match.encoder_coverage < minimum_coverage:
        raise InputError(
            f"{path}: covers {_percent(match.encoder_coverage)} of the encoder of this {type(network).__name__} where "
            f"minimum_coverage is {minimum_coverage:.1%}; do not fit: {_first(match.gaps)}; "
            f"the file begins with {_first(state)}; give the network_def, features or backbone of the pre-training"
        )
    if match.holes and minimum_coverage > 0:
        raise InputError(
            f"{path}: the features of this {type(network).__name__} would not be those of the file, as layers of the "
            f"encoder do not fit: {_first(match.holes)}; minimum_coverage 0 loads what fits"
        )
    _refuse_contradiction(network, match, path)
    network.load_state_dict(match.tensors, strict=False)
    note = [conversion.note] if conversion is not None and conversion.note else []
    _say([*describe_match(match, f"{path} -> {type(network).__name__}"), *note])
    return network


def match_weights(network: nn.Module, state: Mapping[str, Tensor]) -> Match:
    """The match of a state dict and a network under the renaming that covers most of the encoder; changes neither.

    Where the names of the file begin with one of ``PREFIXES``, the renamings are tried with and without it.
    """
    found = ["", *(prefix for prefix in PREFIXES if any(key.startswith(prefix) for key in state))]
    candidates = {
        f"{rule}{f', without {prefix}' if prefix else ''}": {rename(key.removeprefix(prefix)): key for key in state}
        for prefix in found
        for rule, rename in _RULES.items()
    }
    matches = [_match(network, names, state, rule) for rule, names in candidates.items() if len(names) == len(state)]
    return max(matches, key=lambda match: (match.encoder_coverage, match.coverage))


def describe_match(match: Match, title: str) -> list[str]:
    """Lines that say how many tensors matched and which did not."""
    different = [f"{key} {_shapes(*shapes)}" for key, shapes in match.mismatched.items()]
    lines = [
        f"pretrained: {title}, {match.rule}",
        f"  matched: {len(match.tensors)}",
        f"  other shape, left new: {_count(different)}",
        f"  not in the file, left new: {_count(match.new)}",
        f"  in the file only, unused: {_count(match.unused)}",
        f"  first convolution: {match.adaptation}",
        f"  coverage: {_percent(match.encoder_coverage)} of the encoder, {_percent(match.coverage)} of the network",
    ]
    if match.encoder_coverage < 1:
        lines.append(f"  note: the encoder's features are not those of the file: {_first(match.gaps)}")
    return [line for line in lines if not line.endswith(": ")]


def _rename_stage(names: Mapping[str, str], key: str) -> str:
    head, dot, tail = key.partition(".")
    return names.get(head, head) + dot + tail


_RULES: dict[str, Callable[[str], str]] = {
    "same names": lambda key: key,
    "encoder.x of the file is x": lambda key: key.removeprefix("encoder."),
    "x of the file is encoder.x": lambda key: key if key.startswith("fc.") else f"encoder.{key}",
}
for _kind in (BasicUNet, GenesisUNet):
    _stages = dict(enumerate(NETWORKS[_kind].encoder))
    _RULES[f"stages of {_kind.__name__} in a row"] = partial(_rename_stage, {v: str(k) for k, v in _stages.items()})
    _RULES[f"a row of the stages of {_kind.__name__}"] = partial(_rename_stage, {str(k): v for k, v in _stages.items()})


def _match(network: nn.Module, names: Mapping[str, str], state: Mapping[str, Tensor], rule: str) -> Match:
    """One candidate; ``names`` gives the key of the file for a name of the network."""
    own = network.state_dict(keep_vars=True)
    encoder = encoder_names(network)
    roots = set(encoder) or {_head(key) for key in own}
    tied = _tied_names(own)
    found = {name: state[names[alias]] for name in own for alias in tied[name] if alias in names}
    given, adaptation = _adapt_channels(network, {name: state[key] for name, key in names.items()} | found, roots)
    shared = [key for key in own if key in given]
    tensors = {key: given[key] for key in shared if given[key].shape == own[key].shape}
    mismatched = {key: (tuple(given[key].shape), tuple(own[key].shape)) for key in shared if key not in tensors}
    once = {id(own[key]): key for key in reversed(own)}.values()  # DynUNet names its blocks twice
    surplus = {key: state[key] for name, key in names.items() if name not in own and _head(name) in roots}
    new = [key for key in own if key not in given]
    reshaped = {f"{key} {_shapes(*shapes)}": own[key] for key, shapes in mismatched.items() if _head(key) in roots}
    absent = {f"{key} (not in the file)": own[key] for key in new if _head(key) in roots}
    absent |= {f"{key} (in the file only)": tensor for key, tensor in surplus.items()}
    return Match(
        rule=rule,
        tensors=tensors,
        mismatched=mismatched,
        new=new,
        unused=[key for name, key in names.items() if name not in own],
        gaps=[*reshaped, *absent],
        holes=[
            gap for gap, tensor in ((reshaped if encoder else {}) | absent).items() if _size(tensor) and tensor.ndim > 1
        ],
        adaptation=adaptation,
        encoder_coverage=_share({key: own[key] for key in once if _head(key) in roots}, tensors, surplus),
        coverage=_share({key: own[key] for key in once}, tensors, {}),
    )


def _tied_names(own: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """For each name of a state dict with kept variables all names of the same tensor, its own last.

    The order makes a name's own value win over that of another name.
    """
    groups: dict[int, list[str]] = defaultdict(list)
    for name, tensor in own.items():
        groups[id(tensor)].append(name)
    return {name: sorted(groups[id(tensor)], key=name.__eq__) for name, tensor in own.items()}


def _refuse_contradiction(network: nn.Module, match: Match, path: str | Path) -> None:
    """Refuse a file that gives one tensor different values under different names; torch would take the last one."""
    for name, tied in _tied_names(network.state_dict(keep_vars=True)).items():
        for other in tied:
            given = [match.tensors[key] for key in (name, other) if key in match.tensors]
            if len(given) == 2 and not torch.equal(*given):
                raise InputError(
                    f"{path}: {name} and {other} are one tensor of the {type(network).__name__}, but have different "
                    f"values in the file; give one of the names alone"
                )


def _adapt_channels(
    network: nn.Module, given: dict[str, Tensor], roots: Container[str]
) -> tuple[dict[str, Tensor], str]:
    """Make the weights of the convolutions that read the image fit its channels; what was done, in words.

    A gray image, equal in all channels, sees the sum over them before and after.
    """
    own = network.state_dict()
    modules = network.named_modules(remove_duplicate=False)
    keys = [f"{name}.weight" for name, part in modules if _reads_axis_1(part)]
    stem = next((key for key in keys if _head(key) in roots), "")
    if stem not in given or not _differ_in_channels(given[stem], own[stem]):
        return given, ""
    old, new = given[stem].shape[1], own[stem].shape[1]
    adapted = {
        key: given[key].sum(dim=1, keepdim=True).expand_as(own[key]) / new
        for key in keys
        if key in given and _differ_in_channels(given[key], own[key]) and given[key].shape[1] == old
    }
    how = [*["summed"][: old > 1], *[f"copied and divided by {new}"][: new > 1]]
    return given | adapted, f"{old} -> {new} input channels, {', '.join(how)}"


def _reads_axis_1(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd) and module.groups == 1


def _differ_in_channels(given: Tensor, wanted: Tensor) -> bool:
    """Whether two weights of convolutions have equal shapes but for the number of input channels."""
    return given.ndim == wanted.ndim and given.shape != wanted.shape and given[:, 0].shape == wanted[:, 0].shape


def _share(own: Mapping[str, Tensor], tensors: Container[str], surplus: Mapping[str, Tensor]) -> float:
    """Part of the elements that is matched, where those of ``surplus`` count as not matched."""
    matched = sum(_size(tensor) for key, tensor in own.items() if key in tensors)
    return matched / max(1, sum(_size(tensor) for tensor in (*own.values(), *surplus.values())))


def _size(tensor: Tensor) -> int:
    return tensor.numel() if tensor.is_floating_point() else 0


def _head(key: str) -> str:
    return key.partition(".")[0]


def _shapes(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    return f"({given} in the file, {wanted} in the network)"


def _first(keys: Iterable[str]) -> str:
    return ", ".join([*keys][:MAX_KEYS])


def _count(keys: Sequence[str]) -> str:
    """Their number and the first few; empty where there is none."""
    more = ", ..." if len(keys) > MAX_KEYS else ""
    return f"{len(keys)}: {_first(keys)}{more}" if keys else ""


def _percent(share: float) -> str:
    """Rounded down, so that 100.0% is all."""
    return f"{math.floor(1000 * share) / 10}%"


def _say(lines: Sequence[str]) -> None:
    if rank() == 0:
        print("\n".join(lines))
