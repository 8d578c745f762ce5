"""Schedules of learning rates."""

from monai.optimizers import WarmupCosineSchedule
from torch.optim import Optimizer

from ..utils.errors import InputError


class FlooredCosineSchedule(WarmupCosineSchedule):
    """MONAI's warm-up and cosine, which ends at a share of each group's rate instead of at 0, as in Barlow Twins.

    After the warm-up the factor is floor + (1 - floor) * (1 + cos) / 2. MONAI's own ``end_lr`` is one absolute rate for
    all groups. Groups with ``fixed_rate`` True keep their rate all the time, as SimSiam's predictor may.

    Attributes:
        warmup_steps: number of steps of the warm-up.
        t_total: number of all steps.
        floor: share of the rate that is left at the end, in [0, 1].
        warmup_multiplier: share of the rate at the first step.
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
