"""Parameter groups of optimizers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..networks.encoder_parts import layers, loaded_from_file
from ..utils.errors import InputError
from .lars import LARS


def param_groups_layer_decay(
    network: nn.Module, learning_rate: float, layer_decay: float = 1.0, pretrained_rate: float = 1.0
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, whose rate falls by a factor with each layer away from the output.

    Layer-wise decay as in ELECTRA (Clark et al., 2020, https://arxiv.org/abs/2003.10555) and BEiT: the last of n layers
    has ``learning_rate``, layer i of 0 .. n - 1 has ``learning_rate * layer_decay ** (n - 1 - i)``.
    Layers without parameters do not count (see ``layers``); a decay of 1 gives the same rate everywhere.
    Parameters that came from a file (``mark_pretrained``) have ``pretrained_rate`` of that, in groups of their own.
    """
    groups: list[list[nn.Parameter]] = []
    seen: set[int] = set()
    for layer in layers(network):
        own = [p for p in layer.parameters() if id(p) not in seen]
        seen |= {id(p) for p in own}
        groups += [own] if own else []
    rest = [p for p in network.parameters() if id(p) not in seen]
    if rest:  # of no layer: parameters of the network itself
        groups.insert(0, rest)
    rates = [learning_rate * layer_decay**i for i in reversed(range(len(groups)))]
    pairs = list(zip(groups, rates, strict=True))
    if pretrained_rate < 1:  # those of new parameters last, since logs show the rate of the last group
        parts = [(True, pretrained_rate), (False, 1.0)]
        pairs = [([p for p in g if loaded_from_file(p) is old], r * f) for old, f in parts for g, r in pairs]
        pairs = [(group, rate) for group, rate in pairs if group]
    return [{"params": group, "lr": rate} for group, rate in pairs]


def optimizer_class(name: str) -> type[Optimizer]:
    """``LARS``, or the optimizer of this name in ``torch.optim``."""
    known = {"LARS": LARS} | {k: v for k, v in vars(torch.optim).items() if isinstance(v, type)}
    if name not in known or not issubclass(known[name], Optimizer):
        raise InputError(f"optimizer_name must be LARS or an optimizer of torch.optim, such as Adam, got {name!r}")
    return known[name]


def param_groups_lars(network: nn.Module, objective: nn.Module, bias_learning_rate: float) -> list[dict[str, Any]]:
    """Groups for ``LARS`` as in Barlow Twins: biases and norms have a rate of their own, no scaling and no decay.

    Their rate, ``bias_learning_rate``, is that of all parameters with less than two axes. The weights come last, since
    logs show the rate of the last group.
    """
    parameters = trainable_parameters(network, objective)
    vectors = [p for p in parameters if p.ndim < 2]
    exempt = {"params": vectors, "lr": bias_learning_rate, "weight_decay": 0.0, "adapted": False}
    weights = {"params": [p for p in parameters if p.ndim >= 2]}
    return [group for group in (exempt, weights) if group["params"]]


def rate_groups(network: nn.Module, objective: nn.Module, fixed_rate: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Groups for any optimizer, of which ``FlooredCosineSchedule`` leaves the first one's rate alone.

    ``fixed_rate`` names the objective's parts whose rate is constant, such as SimSiam's ``predictor``; without names
    there is one group.
    """
    parts = dict(objective.named_children())
    unknown = [name for name in fixed_rate if name not in parts]
    if unknown:
        raise InputError(f"fixed_rate must name parts of the objective ({', '.join(parts)}), got {unknown[0]}")
    fixed = trainable_parameters(*(parts[name] for name in fixed_rate))
    known = {id(p) for p in fixed}
    rest = [p for p in trainable_parameters(network, objective) if id(p) not in known]
    return [*([{"params": fixed, "fixed_rate": True}] if fixed else []), {"params": rest}]


def trainable_parameters(*modules: nn.Module) -> list[nn.Parameter]:
    """Parameters of the modules that learn by gradient: those of network and objective, without the key branch."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]
