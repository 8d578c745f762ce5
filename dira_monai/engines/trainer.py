"""Pre-training: MONAI's supervised trainer, extended for three losses and two optimizers."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from ..losses.adversarial import GANS, discriminator_accuracy, discriminator_loss, generator_loss, gradient_penalty
from ..losses.restoration import masked_loss
from ..metrics import rank_collapse
from ..networks.encoder_decoder import encoder_state
from ..networks.instance_norm import use_channels_last
from ..objectives.no_objective import NoObjective
from ..objectives.objective import Objective, ObjectiveInputs
from ..transforms.grid_views import GridViews
from ..transforms.views import Views
from ..utils.distributed import average_scalars, broadcast, world_size
from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom
from .forward import completed, decoded, encode_query, objective_outputs, prefixed, restored
from .precision import make_scaler
from .resumable import ResumableTrainer, optimizer_step
from .stages import Schedule, Weights


class DiRATrainer(ResumableTrainer):
    """Trainer of w_dis L_dis + w_res L_res + w_adv L_adv of DiRA (https://arxiv.org/abs/2204.10437).

    A step: encode the query view once; the objective discriminates images; the decoder restores the target; the
    discriminator, frozen, classifies the restoration; the generator steps; then the discriminator steps on targets as
    real and restorations as false. A part with weight 0 costs nothing. Where the query is masked, the restoration
    loss is that of the masked voxels, the discriminator sees the target's own voxels everywhere else, and the objective
    sees the query before it was masked, which costs a second pass of the encoder.

    ``engine.state.output`` holds, detached: ``loss`` (weighted sum), of the losses that are active ``contrastive``,
    ``restoration``, ``adversarial``, ``discriminator``; ``discriminator_accuracy``, or with wgan, which has none,
    ``discriminator_distance`` (mean logit of targets less that of restorations: the Wasserstein distance, as far as the
    critic knows it); ``gradient_penalty`` before its weight; the objective's metrics with ``contrastive_`` before their
    names; ``query`` and ``key`` (embeddings); ``restored`` (images).

    Attributes:
        objective: such as ``MoCo``.
        views: makes query, key and target of a batch.
        discriminator: ``PatchDiscriminator`` of MONAI; not run and not changed where the adversarial weight is 0.
        discriminator_optimizer: its optimizer.
        contrastive_weight: w_dis.
        restoration_weight: w_res.
        adversarial_weight: w_adv.
        gan: form of the adversarial losses: lsgan, vanilla, hinge or wgan.
        gradient_penalty: weight of WGAN-GP's penalty against the sum of the discriminator's two terms, which is halved
            together with them; 0: none, which wgan does not bear.
        conditional: whether the discriminator sees the distorted image too, as further channels (stepwise pre-training,
            Guo et al., DART 2022).
        stage_epochs: how many epochs the stages di, dir and dira last; None: all weights hold from the first epoch.
        precision: fp32, bf16, fp16 or auto.
        channels_last: whether weights lie in memory with channels innermost, which convolutions are faster with.
        kwargs: everything that ``ResumableTrainer`` takes; ``loss_function`` is the restoration loss, and
            ``gradient_clip`` concerns the generator alone.
    """

    losses = ("loss", "contrastive", "restoration", "adversarial", "discriminator")

    def __init__(
        self,
        *,
        objective: Objective,
        views: Views | GridViews,
        discriminator: nn.Module,
        discriminator_optimizer: torch.optim.Optimizer,
        contrastive_weight: float = 1.0,
        restoration_weight: float = 10.0,
        adversarial_weight: float = 0.001,
        gan: str = "lsgan",
        gradient_penalty: float = 0.0,
        conditional: bool = False,
        stage_epochs: Sequence[int] | None = None,
        precision: str = "fp32",
        channels_last: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(precision=precision, **kwargs)
        self.objective = objective
        self.views = views
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer
        weights = Weights(contrastive_weight, restoration_weight, adversarial_weight)
        self.schedule = Schedule(weights, stage_epochs, self.schedule_epochs)
        self.gan = gan
        self.gradient_penalty = gradient_penalty
        self.conditional = conditional
        self.discriminator_scaler = make_scaler(self.state.device, self.precision)
        self.keys: list[Tensor] = []  # of the batches since the last optimizer step
        if gan not in GANS:
            raise InputError(f"gan must be one of {', '.join(GANS)}, got {gan!r}")
        if gan == "wgan" and gradient_penalty <= 0:
            raise InputError(f"gan wgan needs a positive gradient_penalty, got {gradient_penalty}")
        if contrastive_weight > 0 and isinstance(objective, NoObjective):
            raise InputError(f"contrastive_weight must be 0 without an objective, got {contrastive_weight}")
        if channels_last:
            use_channels_last(self.network, objective)
            use_channels_last(discriminator, norms=gradient_penalty == 0)  # it is differentiated twice
        steps = self.schedule_epochs * self.state.epoch_length // self.accumulation_steps
        batch = self.data_loader.batch_size * self.accumulation_steps * world_size()
        objective.fit_to(steps, self.data_loader.dataset, batch)
        broadcast(self.network, objective, discriminator)

    def weights_at(self, epoch: int) -> Weights:
        """Weights of an epoch, counted from 1."""
        return self.schedule.at(epoch)

    def stage(self, epoch: int) -> str:
        """Name of the stage of an epoch, counted from 1, as the paper has it."""
        return self.weights_at(epoch).stage

    def to_save(self) -> dict[str, Any]:
        """Everything besides handlers and random states that a resumed run must find as it was."""
        return super().to_save() | {
            "objective": self.objective,
            "discriminator": self.discriminator,
            "discriminator_optimizer": self.discriminator_optimizer,
            "discriminator_scaler": self.discriminator_scaler,
        }

    def export_states(self) -> dict[str, dict[str, Tensor]]:
        """The network, its encoder under the same names, and the objective (projector, key branch, queue)."""
        extra = {"encoder.pt": encoder_state(self.network), "objective.pt": self.objective.state_dict()}
        return super().export_states() | extra

    def step_metrics(self) -> dict[str, Tensor]:
        """Losses, accuracies, the objective's metrics, and the deviation of the restoration: 0 for a constant one."""
        output = self.state.output
        metrics = {name: value for name, value in output.items() if value.ndim == 0}
        return metrics | ({"restored_deviation": output["restored"].std()} if "restored" in output else {})

    def epoch_metrics(self) -> dict[str, float]:
        """How far the embeddings have collapsed, and the momentum of the key branch."""
        metrics = {"collapse": rank_collapse(self.state.output["query"])} if "query" in self.state.output else {}
        return metrics | {"momentum": self.objective.momentum_at(self.progress)}

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Tensor]) -> dict[str, Tensor]:
        """One batch: both updates."""
        images, _ = self.prepare_batch(batchdata, self.state.device, self.non_blocking)
        weights = self.weights_at(self.state.epoch)
        views = self.views(images, batchdata["seed"], distort=weights.restores)
        views |= {name: value for name, value in batchdata.items() if name != "image"}
        output, stepped = self.generator_step(lambda: self._forward(views, weights))
        if "key" in output:
            self.keys.append(output["key"])
        if stepped:
            if weights.contrastive > 0:
                self.objective.update(self.network, torch.cat(self.keys) if self.keys else None, self.progress)
            self.keys = []
        if weights.adversarial > 0:
            output |= self._discriminator_step(views, output["restored"])
        self.state.output = average_scalars(output)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    @property
    def progress(self) -> float:
        """Share of all planned iterations that are done, in [0, 1]."""
        return min(1.0, self.state.iteration / (self.schedule_epochs * self.state.epoch_length))

    def _forward(self, views: dict[str, Tensor], weights: Weights) -> dict[str, Tensor]:
        """The generator's losses in training mode, under autocast."""
        self.objective.train()
        with self.context:
            output = self._losses(views, weights)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        return output

    def _losses(self, views: dict[str, Tensor], weights: Weights) -> dict[str, Tensor]:
        """The generator's losses and what they were computed from."""
        output: dict[str, Tensor] = {}
        learns = weights.contrastive > 0
        features, whole = encode_query(self.network, views, learns)
        total = torch.zeros([], device=views["query"].device)
        decodes = weights.restores or (learns and self.objective.needs_decoder)
        maps = decoded(self.network, self.objective, features) if decodes else None
        if learns:
            self.objective.progress = self.progress
            outputs = objective_outputs(self.objective, ObjectiveInputs(self.network, views, features, maps), whole)
            output |= prefixed(self.objective, outputs)
            total = total + weights.contrastive * outputs["loss"]
        if weights.restores and maps is not None:
            output["restored"] = restored(self.network, maps)
            output["restoration"] = masked_loss(
                self.loss_function, output["restored"], views["target"], views.get("mask")
            )
            total = total + weights.restoration * output["restoration"]
        if weights.adversarial > 0:
            self.discriminator.requires_grad_(False)
            logits = self.discriminator(self._shown(output["restored"], views))[-1]
            output["adversarial"] = generator_loss(logits, self.gan)
            self.discriminator.requires_grad_(True)
            total = total + weights.adversarial * output["adversarial"]
        return output | {"loss": total}

    def _shown(self, images: Tensor, views: dict[str, Tensor]) -> Tensor:
        """What the discriminator sees of images: themselves, and if it is conditional, what was to be restored.

        The restoration loss says nothing of voxels that no mask hides, so the discriminator must not see them either.
        """
        images = completed(images, views)
        return torch.cat([images, views["query"]], dim=1) if self.conditional else images

    def _discriminator_step(self, views: dict[str, Tensor], restored: Tensor) -> dict[str, Tensor]:
        """Loss and metrics of the discriminator; a step of its optimizer after the last accumulated batch."""
        first, last = self.accumulation()
        self.discriminator.train()
        if first:
            self.discriminator_optimizer.zero_grad()
        target, restored = self._shown(views["target"], views), self._shown(restored, views)
        with self.context:
            real, false = self.discriminator(target)[-1], self.discriminator(restored)[-1]
        loss = discriminator_loss(real, false, self.gan)
        metrics = self._discriminator_metrics(real.detach(), false.detach())
        if self.gradient_penalty > 0:
            share = SampleRandom(~views["seed"].cpu()).uniform()  # the seed's own numbers place the crop
            penalty = gradient_penalty(self.discriminator, target, restored, share)
            loss = loss + 0.5 * self.gradient_penalty * penalty  # halved as the loss is: their ratio is the papers'
            metrics["gradient_penalty"] = penalty.detach()
        self.discriminator_scaler.scale(loss / self.accumulation_steps).backward()
        if last:
            optimizer_step(self.discriminator_optimizer, self.discriminator_scaler, None)
        return {"discriminator": loss.detach()} | metrics

    def _discriminator_metrics(self, real: Tensor, false: Tensor) -> dict[str, Tensor]:
        """How well the discriminator separates targets from restorations."""
        if GANS[self.gan].threshold is None:
            return {"discriminator_distance": real.float().mean() - false.float().mean()}
        return {"discriminator_accuracy": discriminator_accuracy(real, false, self.gan)}
