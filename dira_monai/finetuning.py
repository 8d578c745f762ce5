"""Fine-tuning with few labels: one supervised step, which layers learn how fast and when, when to stop, seeded data."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset
from monai.engines import Evaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.networks.nets import FlexibleUNet, ResNet
from torch import Tensor, nn

from .backbones import check_patch_size, encoder_names
from .distributed import average_scalars, broadcast
from .errors import InputError
from .training import ResumableTrainer, optimizer_step


class FineTuner(ResumableTrainer):
    """Trainer of one supervised loss, whose encoder may rest in the first epochs.

    ``engine.state.output`` holds ``loss``, the mean over all processes, and ``pred`` and ``label`` of the batch.

    Attributes:
        freeze_epochs: epochs in which the encoder neither learns nor moves its batch statistics.
        kwargs: everything that ``ResumableTrainer`` takes.

    Raises:
        InputError: if ``freeze_epochs`` is negative, or the network has no known encoder to freeze.
    """

    def __init__(self, *, freeze_epochs: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.freeze_epochs = freeze_epochs
        self.encoder = list(encoder_parts(self.network))
        if freeze_epochs < 0:
            raise InputError(f"freeze_epochs must not be negative, got {freeze_epochs}")
        if freeze_epochs > 0 and not self.encoder:
            name = type(self.network).__name__
            raise InputError(f"freeze_epochs must be 0 where the encoder of the network is not known ({name})")
        broadcast(self.network)
        self.add_event_handler(Events.EPOCH_STARTED, FineTuner.thaw)

    def stage(self, epoch: int) -> str:
        """Whether the encoder rests in an epoch, counted from 1."""
        return "encoder frozen" if epoch <= self.freeze_epochs else ""

    def thaw(self) -> None:
        """Let the encoder rest or learn, as the epoch asks: a resumed run needs no memory of it."""
        for part in self.encoder:
            part.requires_grad_(self.state.epoch > self.freeze_epochs)

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Tensor]) -> dict[str, Tensor]:
        """One batch."""
        images, labels = self.prepare_batch(batchdata, self.state.device, self.non_blocking)
        self.network.train()
        for part in self.encoder if self.stage(self.state.epoch) else ():
            part.eval()
        first, last = self.accumulation()
        if first:
            self.optimizer.zero_grad()
        with self.context:
            pred = self.inferer(images, self.network)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss = self.loss_function(pred.float(), labels)
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self.loss_scaler.scale(loss / self.accumulation_steps).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if last:
            optimizer_step(self.optimizer, self.loss_scaler, self.gradient_clip)
        self.state.output = average_scalars({"loss": loss.detach()}) | {"pred": pred.detach(), "label": labels}
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output


def encoder_parts(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of a network that a pre-trained encoder fills.

    These are: of a U-Net those of ``encoder_names``; of MONAI's ``ResNet`` all but ``fc``; of a ``Sequential`` all
    before the first adaptive pooling; of any other network none.
    """
    if isinstance(network, ResNet):
        yield from (child for name, child in network.named_children() if name != "fc")
    elif isinstance(network, nn.Sequential):
        for child in network:
            if "AdaptiveAvgPool" in type(child).__name__ or "AdaptiveMaxPool" in type(child).__name__:
                return
            yield child
    else:
        try:
            names = encoder_names(network)
        except TypeError:
            return
        yield from (getattr(network, name) for name in names)


@singledispatch
def layers(network: nn.Module) -> list[nn.Module]:
    """The parts of a network from input to output: its child modules, in the order in which they are defined."""
    return list(network.children())


@layers.register
def _(network: FlexibleUNet) -> list[nn.Module]:
    return [*network.encoder.children(), *network.decoder.blocks, network.segmentation_head]


def layer_groups(network: nn.Module, learning_rate: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, whose rate falls by a factor with each layer away from the output.

    Layer-wise decay as in ELECTRA (Clark et al., 2020, https://arxiv.org/abs/2003.10555) and BEiT: the last of n layers
    has ``learning_rate``, layer i of 0 .. n - 1 has ``learning_rate * layer_decay ** (n - 1 - i)``.

    Args:
        network: see ``layers``; layers without parameters do not count.
        learning_rate: of the last layer, the head.
        layer_decay: factor in (0, 1]; 1: the same rate everywhere.

    Raises:
        InputError: if ``layer_decay`` is outside of (0, 1].
    """
    if not 0 < layer_decay <= 1:
        raise InputError(f"layer_decay must lie in (0, 1], got {layer_decay}")
    groups: list[list[nn.Parameter]] = []
    seen: set[int] = set()
    for layer in layers(network):
        own = [p for p in layer.parameters() if id(p) not in seen]
        seen |= {id(p) for p in own}
        groups += [own] if own else []
    rest = [p for p in network.parameters() if id(p) not in seen]
    if rest:  # of no layer: parameters of the network itself
        groups.insert(0, rest)
    count = len(groups)
    return [{"params": group, "lr": learning_rate * layer_decay ** (count - 1 - i)} for i, group in enumerate(groups)]


class EarlyStop:
    """Handler that ends the training when the key metric has not improved for so many epochs.

    It judges after each validation and counts from the evaluator's best epoch, which the checkpoint keeps, so a resumed
    run stops where an unbroken one does; MONAI's ``EarlyStopHandler`` counts in itself and starts anew.

    Attributes:
        evaluator: whose best epoch counts; the handler must stand behind its ``ValidationHandler``.
        patience: epochs; None: the training is never ended early.

    Raises:
        InputError: if ``patience`` is less than 1.
    """

    def __init__(self, evaluator: Evaluator, patience: int | None) -> None:
        if patience is not None and patience < 1:
            raise InputError(f"patience must be at least 1 epoch, or None, got {patience}")
        self.evaluator = evaluator
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        """Register for the ends of epochs."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.judge)

    def judge(self, engine: Engine) -> None:
        """End the run, if it is time."""
        best = self.evaluator.state.best_metric_epoch
        if self.patience is None or best < 1 or self.evaluator.state.epoch != engine.state.epoch:
            return  # nothing to judge by in this epoch
        if engine.state.epoch - best >= self.patience:
            engine.logger.info(f"no improvement since epoch {best}: stopped after epoch {engine.state.epoch}")
            engine.terminate()


class SeededCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset`` whose random transforms are fixed by the seed that an item is asked with.

    With ``SeededSampler`` every sample is a function of seed, epoch and position, whatever worker or process makes it.
    """

    def __getitem__(self, item: int | tuple[int, int]) -> Any:
        """The sample of a plain index, or of an (index, seed) pair."""
        index, seed = item if isinstance(item, tuple) else (item, 0)
        self.transform.set_random_state(seed=seed % 2**32)
        return super().__getitem__(index)


def check_output(network: nn.Module, in_channels: int, size: Sequence[int] | None, classes: int, spatial: bool) -> None:
    """Refuse a network that fails on images of this size, or gives an output of another shape.

    Args:
        network: on any device; nothing in it changes.
        in_channels: of the images.
        size: pixels or voxels per axis; None: not known, nothing is checked.
        classes: channels that the output must have.
        spatial: whether the output is an image of the same size, or one value a class.

    Raises:
        InputError: if it does not fit; names the size and the reason.
    """
    if size is None:
        return
    if isinstance(size, int):
        raise InputError(f"the size of the images must be a list with a number for each axis, got {size}")
    with contextlib.suppress(TypeError):  # of a network that cannot be taken apart, only the output is known
        check_patch_size(network, size)
    name, training = type(network).__name__, network.training
    try:
        with torch.no_grad():
            images = torch.zeros(1, in_channels, *size, device=next(network.parameters()).device)
            output = network.eval()(images)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"images of {list(size)} with {in_channels} channels do not fit the {name}: {reason}"
        ) from error
    finally:
        network.train(training)
    given = list(output.shape[1:]) if isinstance(output, Tensor) else type(output).__name__
    wanted = [classes, *size] if spatial else [classes]
    if given != wanted:
        raise InputError(f"the {name} gives {given} for an image of {list(size)} where {wanted} is needed")
