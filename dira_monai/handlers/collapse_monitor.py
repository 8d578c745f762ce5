"""A warning or a stop where the metrics of a run show that it no longer learns."""

import logging
import math
import re
from collections.abc import Iterator, Mapping

from ignite.engine import Events

from ..engines.trainer import DiRATrainer
from ..metrics import describe_collapse
from ..objectives.moco import AT_CHANCE
from ..objectives.objective import Objective
from ..utils.distributed import on_first_process
from ..utils.errors import InputError

LOGGER = logging.getLogger(__name__)
CONSTANT = 0.01  # of [0, 1]: images of a set deviate by 0.1 or more, and a constant one by nothing
CERTAIN = 0.999  # less than one patch in a thousand is classified wrongly


def find_problems(metrics: Mapping[str, float], objective: Objective) -> list[str]:
    """What an epoch's metrics say is wrong, a sentence each; none of a part that did not run.

    ``Objective.diagnose`` comes first; collapsed embeddings are named here only where it finds nothing. A metric that
    is NaN, as ``collapse`` of a single sample, is not checked.

    Args:
        metrics: means over the epoch under the names of ``metrics.csv``: ``contrastive``, ``contrastive_...``,
            ``collapse``, ``restored_deviation``, ``discriminator_accuracy``; without those of parts that did not run;
            and those of the newest validation.
        objective: whose metrics they are.
    """
    own = {name: metrics[f"contrastive_{name}"] for name in objective.metrics if f"contrastive_{name}" in metrics}
    own |= {"collapse": metrics["collapse"]} if "collapse" in metrics else {}
    problems = [objective.diagnose(own) if "contrastive" in metrics else None]
    if not any(problems):
        problems.append(describe_collapse("the embeddings of all images", metrics.get("collapse", 0.0)))
    if (deviation := metrics.get("restored_deviation", 1.0)) < CONSTANT:
        problems.append(
            f"the restored images are constant (their values deviate by {deviation:.4f}): nothing is restored; "
            "try a lower learning_rate, a greater restoration_weight, or look at intensity_range"
        )
    if (accuracy := metrics.get("discriminator_accuracy", 0.0)) > CERTAIN:
        problems.append(
            f"the discriminator tells every restoration from its target (accuracy {accuracy:.4f}): the adversary "
            "teaches little; try a lower discriminator_learning_rate, or more epochs before the stage dira"
        )
    return [problem for problem in [*problems, *_find_validation_problems(metrics)] if problem]


def _find_validation_problems(metrics: Mapping[str, float]) -> Iterator[str]:
    """What the newest validation says is wrong, of the parts that learn."""
    accuracy, chance = (metrics.get(f"val_contrastive_{name}", math.nan) for name in ("accuracy", "chance"))
    if "contrastive" in metrics and accuracy <= AT_CHANCE * chance:
        yield (
            f"held-out images do not find their other view (accuracy {accuracy:.4f}, by guessing {chance:.4f}): the "
            "discriminative part has learned nothing yet; try more epochs, pooled_norm True, another learning_rate or "
            "a shorter queue_size"
        )
    restored, distorted = metrics.get("val_psnr", math.nan), metrics.get("val_distorted_psnr", math.nan)
    if "restoration" in metrics and restored < distorted < math.inf:
        yield (
            f"held-out images are farther from their targets restored ({restored:.1f} dB) than distorted "
            f"({distorted:.1f} dB): the restorative part has learned nothing yet; try more epochs, a lower "
            "learning_rate or a greater restoration_weight"
        )


class CollapseMonitor:
    """Handler that warns of a problem of the run, or stops it, when the problem has lasted some epochs.

    It reads the means that ``TrainingLog`` leaves in ``engine.state.epoch_metrics``, with those of the newest
    validation, and therefore stands behind it, and behind ``Checkpoint``, so that a stop loses nothing. All processes
    have it: the first one checks, all stop. A warning is given once, when the problem has lasted ``patience`` epochs,
    and again after it was gone and has come back. Problems are the same where their sentences differ in numbers only. A
    resumed run counts anew.

    Attributes:
        on_collapse: "warn" or "stop".
        patience: epochs in a row, at least 1. New networks often begin nearly collapsed, restoring nearly a constant.
        on_ailment: former name of ``on_collapse``.
    """

    def __init__(self, on_collapse: str = "warn", patience: int = 3, on_ailment: str | None = None) -> None:
        self.on_collapse = on_ailment or on_collapse
        self.patience = patience
        self.lasting: dict[str, int] = {}  # epochs in a row, by the sentence without its numbers
        self.validation: dict[str, float] = {}  # metrics of the newest, which hold until the next

    def attach(self, engine: DiRATrainer) -> None:
        """Register for the end of each epoch."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check)

    def check(self, engine: DiRATrainer) -> None:
        """Warn or stop where a problem has lasted long enough.

        Raises:
            InputError: in all processes, if the run is to stop; or if no ``TrainingLog`` stands before this handler.
        """
        on_first_process(lambda: self._check(engine))

    def _check(self, engine: DiRATrainer) -> dict[str, int]:
        """The problems that last after this epoch."""
        metrics = getattr(engine.state, "epoch_metrics", None)
        if metrics is None:
            raise InputError(
                "CollapseMonitor has no metrics of the epoch: TrainingLog must stand before it in the handlers"
            )
        self.validation |= {name: value for name, value in metrics.items() if name.startswith("val_")}
        problems = find_problems(self.validation | metrics, engine.objective)
        found = {re.sub(r"\d[\d.e+-]*", "", told): told for told in problems}
        self.lasting = {kind: self.lasting.get(kind, 0) + 1 for kind in found}
        for kind, told in found.items():
            epoch = engine.state.epoch
            since = f"epoch {epoch}, since epoch {epoch + 1 - self.lasting[kind]}: {told}"
            if self.on_collapse == "stop" and self.lasting[kind] >= self.patience:
                raise InputError(
                    f"{since}; training stopped, its checkpoint is written; --resume True --on_collapse warn goes on"
                )
            if self.lasting[kind] == self.patience:
                LOGGER.warning(since)
        return self.lasting
