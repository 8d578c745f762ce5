"""What the siamese methods ask of an optimizer: layer-wise rates, groups of parameters, a schedule with a floor."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from monai.optimizers import WarmupCosineSchedule
from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import InputError
from .trainer import trainable


class LARS(Optimizer):
    """Stochastic gradient descent whose steps are scaled to the norm of each tensor.

    Layer-wise adaptive rate scaling (You et al., 2017, https://arxiv.org/abs/1708.03888). With g the gradient plus
    weight_decay * w: g is multiplied by trust * |w| / |g| where both norms are positive; v = momentum * v + g;
    w = w - lr * v. As in Barlow Twins, and unlike the paper, the norm is that of the sum of gradient and decay instead
    of the sum of both norms, and the rate stands outside of v. In groups with ``adapted`` False nothing is scaled.

    Attributes:
        params: parameters, or groups of them, which may have ``lr``, ``weight_decay``, ``momentum``, ``trust`` and
            ``adapted`` of their own.
        lr: rate.
        momentum: in [0, 1).
        weight_decay: of all parameters of a group.
        trust: share of a tensor's norm that a step of rate 1 moves it by, greater than 0.
        adapted: whether steps are scaled.

    Raises:
        InputError: if one of them is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapted: bool = True,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if value < 0:
                raise InputError(f"{name} must not be negative, got {value}")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must be at least 0 and less than 1, got {momentum}")
        if trust <= 0:
            raise InputError(f"trust must be positive, got {trust}")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapted": adapted}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient.

        Args:
            closure: computes the loss anew, with gradients; its result is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """One update of one parameter."""
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if group["adapted"]:
            own, length = parameter.norm(), gradient.norm()
            ratio = group["trust"] * own / length
            gradient = gradient * torch.where((own > 0) & (length > 0), ratio, 1.0)  # no wait for the device
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        state["velocity"].mul_(group["momentum"]).add_(gradient)
        parameter.add_(state["velocity"], alpha=-group["lr"])


def optimizer_class(name: str) -> type[Optimizer]:
    """``LARS``, or the optimizer of this name in ``torch.optim``.

    Raises:
        InputError: if there is none.
    """
    known = {"LARS": LARS} | {k: v for k, v in vars(torch.optim).items() if isinstance(v, type)}
    if name not in known or not issubclass(known[name], Optimizer):
        raise InputError(f"optimizer_name must be LARS or an optimizer of torch.optim, such as Adam, got {name!r}")
    return known[name]


def lars_groups(network: nn.Module, objective: nn.Module, bias_learning_rate: float) -> list[dict[str, Any]]:
    """Groups for ``LARS`` as in Barlow Twins: biases and norms have a rate of their own, no scaling and no decay.

    The weights come last, since logs show the rate of the last group.

    Args:
        network: the network.
        objective: the objective, of which only what learns by gradient is taken.
        bias_learning_rate: of all parameters with less than two axes.
    """
    parameters = trainable(network, objective)
    vectors = [p for p in parameters if p.ndim < 2]
    exempt = {"params": vectors, "lr": bias_learning_rate, "weight_decay": 0.0, "adapted": False}
    weights = {"params": [p for p in parameters if p.ndim >= 2]}
    return [group for group in (exempt, weights) if group["params"]]


def rate_groups(network: nn.Module, objective: nn.Module, fixed_rate: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Groups for any optimizer, of which ``FlooredCosineSchedule`` leaves the first one's rate alone.

    Args:
        network: the network.
        objective: the objective, of which only what learns by gradient is taken.
        fixed_rate: names of the objective's parts whose rate is constant, such as SimSiam's ``predictor``; none: there
            is one group.

    Raises:
        InputError: if the objective has no part of that name.
    """
    parts = dict(objective.named_children())
    unknown = [name for name in fixed_rate if name not in parts]
    if unknown:
        raise InputError(f"fixed_rate must name parts of the objective ({', '.join(parts)}), got {unknown[0]}")
    fixed = trainable(*(parts[name] for name in fixed_rate))
    known = {id(p) for p in fixed}
    rest = [p for p in trainable(network, objective) if id(p) not in known]
    return [*([{"params": fixed, "fixed_rate": True}] if fixed else []), {"params": rest}]


class FlooredCosineSchedule(WarmupCosineSchedule):
    """MONAI's warm-up and cosine, which ends at a share of each group's rate instead of at 0, as in Barlow Twins.

    After the warm-up the factor is floor + (1 - floor) * (1 + cos) / 2. MONAI's own ``end_lr`` is one absolute rate for
    all groups. Groups with ``fixed_rate`` True keep their rate all the time, as SimSiam's predictor may.

    Attributes:
        optimizer: whose rates are set.
        warmup_steps: number of steps of the warm-up.
        t_total: number of all steps.
        floor: share of the rate that is left at the end, in [0, 1].
        warmup_multiplier: share of the rate at the first step.

    Raises:
        InputError: if ``floor`` is outside of [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        t_total: int,
        floor: float = 0.0,
        warmup_multiplier: float = 0.0,
    ) -> None:
        if not 0 <= floor <= 1:
            raise InputError(f"floor must lie in [0, 1], got {floor}")
        self.floor = floor
        super().__init__(optimizer, warmup_steps, t_total, warmup_multiplier=warmup_multiplier)

    def get_lr(self) -> list[float]:
        """Rates of all groups at the step that the schedule is at."""
        factor = self.lr_lambda(self.last_epoch)
        if self.last_epoch >= self.warmup_steps:
            factor = self.floor + (1 - self.floor) * factor
        rates = zip(self.base_lrs, self.optimizer.param_groups, strict=True)
        return [rate if group.get("fixed_rate") else rate * factor for rate, group in rates]
