"""One training step of DiRA: MONAI's supervised trainer, extended for three losses and two optimizers."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from .backbones import decode, encode, encoder_state
from .distributed import average_scalars, broadcast
from .errors import InputError
from .losses import GANS, discriminator_accuracy, discriminator_loss, generator_loss
from .monitors import collapse
from .objectives import Objective
from .training import ResumableTrainer, make_scaler, optimizer_step
from .views import Views

LOGGER = logging.getLogger(__name__)
STAGES = ("di", "dir", "dira")

FIGURES = (
    "loss",
    "contrastive",
    "restoration",
    "adversarial",
    "discriminator",
    "contrastive_accuracy",
    "discriminator_accuracy",
)


class Weights(NamedTuple):
    """Weights of the three losses in one epoch."""

    contrastive: float
    restoration: float
    adversarial: float

    @property
    def restores(self) -> bool:
        """Whether an image is restored at all: the decoder runs and the views are distorted."""
        return self.restoration > 0 or self.adversarial > 0

    @property
    def stage(self) -> str:
        """Name of the stage as the paper has it: di, dir or dira."""
        return STAGES[2] if self.adversarial > 0 else STAGES[1] if self.restoration > 0 else STAGES[0]


def restore(network: nn.Module, features: list[Tensor]) -> Tensor:
    """Restored images in [0, 1], float32: the sigmoid of the network's output, as in the published code."""
    return decode(network, features).float().sigmoid()


class DiRATrainer(ResumableTrainer):
    """Trainer of w_dis L_dis + w_res L_res + w_adv L_adv of DiRA (https://arxiv.org/abs/2204.10437).

    A step: encode the query view once; the objective tells images apart; the decoder restores the target; the
    discriminator, frozen, judges the restoration; the generator steps; then the discriminator steps on targets as
    real and restorations as false. A part with weight 0 costs nothing.

    ``engine.state.output`` holds, detached: ``loss`` (weighted sum), of the losses that are active ``contrastive``,
    ``restoration``, ``adversarial``, ``discriminator``; ``contrastive_accuracy``, ``discriminator_accuracy``; ``query``
    and ``key`` (embeddings); ``restored`` (images).

    Attributes:
        objective: such as ``MoCo``.
        views: makes query, key and target of a batch.
        discriminator: ``PatchDiscriminator`` of MONAI; not run and not changed where the adversarial weight is 0.
        discriminator_optimizer: its optimizer.
        contrastive_weight: w_dis.
        restoration_weight: w_res.
        adversarial_weight: w_adv.
        gan: form of the adversarial losses: lsgan, vanilla or hinge.
        stage_epochs: how many epochs the stages di, dir and dira last; None: all weights hold from the first epoch.
        precision: fp32, bf16 or fp16.
        kwargs: everything that ``ResumableTrainer`` takes; ``loss_function`` is the restoration loss, and
            ``gradient_clip`` concerns the generator alone.
    """

    losses = ("loss", "contrastive", "restoration", "adversarial", "discriminator")

    def __init__(
        self,
        *,
        objective: Objective,
        views: Views,
        discriminator: nn.Module,
        discriminator_optimizer: torch.optim.Optimizer,
        contrastive_weight: float = 1.0,
        restoration_weight: float = 10.0,
        adversarial_weight: float = 0.001,
        gan: str = "lsgan",
        stage_epochs: Sequence[int] | None = None,
        precision: str = "fp32",
        **kwargs: Any,
    ) -> None:
        super().__init__(precision=precision, **kwargs)
        if stage_epochs is not None and (len(stage_epochs) != len(STAGES) or min(stage_epochs) < 0):
            raise InputError(f"stage_epochs must be three counts, for di, dir and dira, got {list(stage_epochs)}")
        self.objective = objective
        self.views = views
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer
        self.weights = Weights(contrastive_weight, restoration_weight, adversarial_weight)
        self.gan = gan
        self.stage_epochs = stage_epochs
        self.discriminator_scaler = make_scaler(self.state.device, precision)
        self.keys: list[Tensor] = []  # of the batches since the last optimizer step
        if gan not in GANS:
            raise InputError(f"gan must be one of {', '.join(GANS)}, got {gan!r}")
        if stage_epochs is not None and sum(stage_epochs) != self.state.max_epochs:
            LOGGER.warning(
                f"stage_epochs {list(stage_epochs)} are not the {self.state.max_epochs} epochs of the run: "
                f"it ends in stage {self.weights_at(self.state.max_epochs).stage}"
            )
        idle = [e for e in range(1, self.state.max_epochs + 1) if max(self.weights_at(e)) <= 0]
        if idle:
            stage = self.weights_at(idle[0]).stage
            raise InputError(
                f"epoch {idle[0]} has nothing to learn: in stage {stage} no loss has a positive weight; "
                "give contrastive_weight, or that stage 0 epochs in stage_epochs"
            )
        broadcast(self.network, objective, discriminator)

    def weights_at(self, epoch: int) -> Weights:
        """Weights of an epoch, counted from 1; epochs beyond the schedule belong to its last stage."""
        if self.stage_epochs is None or epoch > sum(self.stage_epochs[:2]):
            return self.weights
        in_di = epoch <= self.stage_epochs[0]
        return self.weights._replace(adversarial=0.0, restoration=0.0 if in_di else self.weights.restoration)

    def stage(self, epoch: int) -> str:
        """Name of the stage of an epoch, counted from 1, as the paper has it."""
        return self.weights_at(epoch).stage

    def stateful(self) -> dict[str, Any]:
        """Everything besides handlers and random states that a resumed run must find as it was."""
        return super().stateful() | {
            "objective": self.objective,
            "discriminator": self.discriminator,
            "discriminator_optimizer": self.discriminator_optimizer,
            "discriminator_scaler": self.discriminator_scaler,
        }

    def exports(self) -> dict[str, dict[str, Tensor]]:
        """The network, its encoder under the same names, and the objective (projector, key branch, queue)."""
        extra = {"encoder.pt": encoder_state(self.network), "objective.pt": self.objective.state_dict()}
        return super().exports() | extra

    def step_figures(self) -> dict[str, Tensor]:
        """Losses, accuracies, and the deviation of the restoration, which is 0 where it is one constant."""
        output = self.state.output
        figures = {name: output[name] for name in FIGURES if name in output}
        return figures | ({"restored_deviation": output["restored"].std()} if "restored" in output else {})

    def epoch_figures(self) -> dict[str, float]:
        """How far the embeddings have collapsed, and the momentum of the key branch."""
        figures = {"collapse": collapse(self.state.output["query"])} if "query" in self.state.output else {}
        moving = hasattr(self.objective, "momentum_at")
        return figures | {"momentum": self.objective.momentum_at(self.progress) if moving else 0}

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Tensor]) -> dict[str, Tensor]:
        """One batch: both updates."""
        images, _ = self.prepare_batch(batchdata, self.state.device, self.non_blocking)
        weights = self.weights_at(self.state.epoch)
        views = self.views(images, batchdata["seed"], distort=weights.restores) | {"seed": batchdata["seed"]}
        first, last = self.accumulation()
        output = self._generator_step(views, weights, first, last)
        if weights.adversarial > 0:
            output |= self._discriminator_step(views["target"], output["restored"], first, last)
        self.state.output = average_scalars(output)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _generator_step(self, views: dict[str, Tensor], weights: Weights, first: bool, last: bool) -> dict[str, Tensor]:
        """Losses of network and objective, detached; a step of their optimizer if this batch is the ``last``."""
        self.network.train()
        self.objective.train()
        if first:
            self.optimizer.zero_grad()
        with self.context:
            output = self._losses(views, weights)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self.loss_scaler.scale(output["loss"] / self.accumulation_steps).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if weights.contrastive > 0:
            self.keys.append(output["key"].detach())
        if last:
            optimizer_step(self.optimizer, self.loss_scaler, self.gradient_clip)
            if self.keys:
                self.objective.update(self.network, torch.cat(self.keys), self.progress)
                self.keys = []
        return {name: value.detach() for name, value in output.items()}

    @property
    def progress(self) -> float:
        """Share of all iterations that are done, in [0, 1]."""
        return min(1.0, self.state.iteration / (self.state.max_epochs * self.state.epoch_length))

    def _losses(self, views: dict[str, Tensor], weights: Weights) -> dict[str, Tensor]:
        """The generator's losses and what they were computed from."""
        output: dict[str, Tensor] = {}
        features = encode(self.network, views["query"])
        total = torch.zeros([], device=views["query"].device)
        if weights.contrastive > 0:
            told = self.objective(self.network, views, features)
            output |= {"contrastive": told["loss"], "contrastive_accuracy": told["accuracy"]}
            output |= {"query": told["query"], "key": told["key"]}
            total = total + weights.contrastive * told["loss"]
        if weights.restores:
            output["restored"] = restore(self.network, features)
            output["restoration"] = self.loss_function(output["restored"], views["target"])
            total = total + weights.restoration * output["restoration"]
        if weights.adversarial > 0:
            self.discriminator.requires_grad_(False)
            output["adversarial"] = generator_loss(self.discriminator(output["restored"])[-1], self.gan)
            self.discriminator.requires_grad_(True)
            total = total + weights.adversarial * output["adversarial"]
        return output | {"loss": total}

    def _discriminator_step(self, target: Tensor, restored: Tensor, first: bool, last: bool) -> dict[str, Tensor]:
        """Loss and accuracy of the discriminator; a step of its optimizer if this batch is the ``last``."""
        self.discriminator.train()
        if first:
            self.discriminator_optimizer.zero_grad()
        with self.context:
            real, false = self.discriminator(target)[-1], self.discriminator(restored)[-1]
        loss = discriminator_loss(real, false, self.gan)
        self.discriminator_scaler.scale(loss / self.accumulation_steps).backward()
        if last:
            optimizer_step(self.discriminator_optimizer, self.discriminator_scaler, None)
        accuracy = discriminator_accuracy(real, false, self.gan)
        return {"discriminator": loss.detach(), "discriminator_accuracy": accuracy.detach()}


def trainable(*modules: nn.Module) -> list[nn.Parameter]:
    """Parameters of the modules that learn by gradient: those of network and objective, without the key branch."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]
