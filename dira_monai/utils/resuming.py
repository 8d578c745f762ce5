"""Training states put back where torch has no public way: learning rates, schedules, random numbers."""

from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from .errors import InputError


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], kind: str | None, path: str | Path) -> None:
    """Load the optimizer's moments and keep its own values: a resumed run may be given another rate or decay.

    Raises:
        InputError: if the moments in the file ``path`` are of another kind of optimizer; None: the file does not say.
    """
    own_kind = type(optimizer).__name__
    if kind not in (None, own_kind):
        raise InputError(f"{path}: its optimizer is {kind}, which a resumed run cannot change to {own_kind}.")
    own = optimizer.state_dict()["param_groups"]
    groups = [mine | {"params": saved["params"]} for mine, saved in zip(own, state["param_groups"], strict=True)]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def fast_forward(scheduler: LRScheduler, steps: int) -> None:
    """Put a scheduler where it stands after so many steps of its own schedule, be it longer than before or not.

    It sets private fields of torch's schedulers: their public ``step`` would compute each rate on the way.
    """
    scheduler.last_epoch, scheduler._step_count = steps, steps + 1
    rates = scheduler.get_lr()
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]


def random_states() -> dict[str, Any]:
    """States of torch's generators; nothing in this package draws from any other."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def load_random_states(states: dict[str, Any]) -> None:
    """Put the generators of the CPU and of those GPUs that are there into the states of ``random_states``."""
    torch.set_rng_state(states["cpu"].cpu())
    torch.cuda.set_rng_state_all([state.cpu() for state in states.get("cuda", [])[: torch.cuda.device_count()]])
