"""Training states put back where torch has no public way: learning rates, schedules, random numbers."""

from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the optimizer's moments and keep its own rates: a resumed run may be given another rate."""
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


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
