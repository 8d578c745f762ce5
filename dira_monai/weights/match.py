"""What of a state dict goes where in a network, and how much of it that is."""

import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from monai.networks.nets import BasicUNet
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..networks.encoder_parts import NETWORKS, encoder_names
from ..networks.genesis_unet import GenesisUNet

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
        f"  coverage: {percent(match.encoder_coverage)} of the encoder, {percent(match.coverage)} of the network",
    ]
    if match.encoder_coverage < 1:
        lines.append(f"  note: the encoder's features are not those of the file: {first(match.gaps)}")
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
    tied = tied_names(own)
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


def tied_names(own: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """For each name of a state dict with kept variables all names of the same tensor, its own last.

    The order makes a name's own value win over that of another name.
    """
    groups: dict[int, list[str]] = defaultdict(list)
    for name, tensor in own.items():
        groups[id(tensor)].append(name)
    return {name: sorted(groups[id(tensor)], key=name.__eq__) for name, tensor in own.items()}


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


def first(keys: Iterable[str]) -> str:
    """The first few names."""
    return ", ".join([*keys][:MAX_KEYS])


def _count(keys: Sequence[str]) -> str:
    """Their number and the first few; empty where there is none."""
    more = ", ..." if len(keys) > MAX_KEYS else ""
    return f"{len(keys)}: {first(keys)}{more}" if keys else ""


def percent(share: float) -> str:
    """Rounded down, so that 100.0% is all."""
    return f"{math.floor(1000 * share) / 10}%"
