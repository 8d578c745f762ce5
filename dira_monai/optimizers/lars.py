"""An optimizer whose steps are scaled to the norm of each tensor."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..utils.errors import InputError


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
        """One update of all parameters that have a gradient; the loss that ``closure`` computes anew, if given."""
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
