"""Rules for batches, epochs and the momentum branch. Each takes numbers and gives a value and a reason."""

import math
from collections.abc import Sequence

import numpy as np

from ...objectives.moco import MOMENTUM, momentum_for, queue_for
from .facts import NONE, RESERVE, SHARE, Choice, DataFacts, DeviceFacts, NetworkFacts

STEPS_AN_EPOCH = 2  # that a small set fills at least: larger batches would hold the same images
SHORTEST = (
    25  # steps of an epoch, where the data has fewer: nnU-Net too fixes its steps, not the times through the data
)
EPOCHS = 20  # that a run has at least, as far as it has steps: as often it is validated
VALIDATION = 0.25  # of an epoch's training, that its validation takes at most, in time
VAL_SAMPLES = 32  # that are compared with each other at least
FORWARD = 1 / 3  # cost of an image without gradient against one with
SHORT_RUN = 100000  # optimizer steps, of 352,800 that were published: short runs collapsed (docs/results.md)


def power_of_two(number: float) -> int:
    """The largest one that is not above the number; at least 1."""
    return 2 ** max(0, math.floor(math.log2(max(1.0, number))))


def choose_batch(
    published: int, voxels: Sequence[int], images: int, network: NetworkFacts, device: DeviceFacts
) -> tuple[Choice, Choice]:
    """Batch and accumulation: as many voxels a step as the bundle has, powers of two, as far as data and memory go.

    Args:
        published: the bundle's batch.
        voxels: of the bundle's patch, and of the plan's.
        images: for training, or regions of them that differ.
        network: gives the memory of a voxel.
        device: gives the memory.
    """
    wanted = power_of_two(min(4 * published, published * max(1.0, voxels[0] / voxels[1])))
    few = max(2, power_of_two(images / STEPS_AN_EPOCH))
    reason = "as published" if wanted == published else f"as many voxels as {published} of the bundle's patches"
    if few < wanted:
        wanted, reason = few, f"half of {images} images or regions at most"
    room = (SHARE * device.memory - RESERVE) / (network.bytes_per_voxel * voxels[1])
    batch = max(2, min(wanted, power_of_two(room)))
    if batch < wanted:
        gigabytes = device.memory / 2**30
        return (
            Choice(batch, f"what {gigabytes:.0f} GiB hold"),
            Choice(wanted // batch, f"{batch} images a batch make the {wanted} of a step"),
        )
    return Choice(batch, reason), Choice(1, "a batch is a step")


def choose_epochs(steps: int, once: int, validation: float, hours: float, seconds: float) -> tuple[Choice, Choice]:
    """Length and number of epochs: the steps that fit into the time, no more than the bundle makes.

    An epoch is once through the data, but ``SHORTEST`` steps at least, a ``EPOCHS``th of the run at most, and so long
    that its validation takes a fifth of the time at most.

    Args:
        steps: the bundle's number for this data.
        once: steps once through the data, or the bundle's length.
        validation: what a validation costs, in steps.
        hours: that the run may last.
        seconds: of a step.
    """
    fit = 3600 * hours / seconds
    total = min(steps, fit)
    length = max(1, min(max(once, SHORTEST), int(total / EPOCHS)), math.ceil(validation / VALIDATION))
    length = min(length, max(1, int(min(total, max(fit - validation, fit / (1 + VALIDATION))))))
    wanted = math.ceil(steps / length)
    epochs = max(1, min(wanted, int(fit / (length + validation))))
    lasts = epochs * (length + validation) * seconds / 3600
    limit = "the bundle's number of steps" if epochs == wanted else f"what {hours:g} h hold"
    reason = f"once through the data or as the bundle has it: {once} steps"
    if length != once:
        reason = (
            f"{once} steps are once through the data; {EPOCHS} epochs or more, validation a fifth of the time at most"
        )
    told = f"{epochs * length} steps of {seconds:.2g} s, {lasts:.2g} h with validation"
    return Choice(length, reason), Choice(epochs, f"{limit}: {told}")


def choose_val_samples(published: int | None, images: int, steps: float, batch: int) -> Choice:
    """Crops that a validation compares with each other: of a few images several each, and no more than time allows.

    A fifth of the time has to hold ``EPOCHS`` validations, or of fewer than ``VAL_SAMPLES`` crops one.

    Args:
        published: the bundle's number; None: each image once.
        images: for validation.
        steps: that fit into the time.
        batch: images of a step.
    """
    most = int(VALIDATION / (1 + VALIDATION) * steps * batch / FORWARD)  # crops of all validations
    most = max(2, most // EPOCHS, min(VAL_SAMPLES, most))
    wanted = published or max(images, VAL_SAMPLES)
    if most < wanted:
        return Choice(most, f"of {images} images, so that validation takes a fifth of the time at most")
    if published is not None or images >= VAL_SAMPLES:
        return Choice(NONE if published is None else published, f"as the bundle has it, of {images} images")
    return Choice(VAL_SAMPLES, f"several crops of each of {images} images, since they are compared with each other")


def choose_warmup(published: int, epochs: int, pretrains: bool) -> Choice:
    """Epochs in which the rate rises: at most a tenth of the run, and at most 10 (SimCLR) or what the bundle has."""
    most = max(published, 10) if pretrains else published
    value = min(most, epochs // 10)
    return Choice(value, f"at most a tenth of {epochs} epochs")


def choose_momentum(published: float | None, steps: int) -> Choice:
    """Momentum of the key branch, at most the published one."""
    return Choice(*momentum_for(steps, MOMENTUM if published is None else published))


def choose_queue(published: int | None, images: int, batch: int, momentum: float) -> Choice:
    """Keys of MoCo-v2's queue, see ``queue_for``."""
    return Choice(*queue_for(images, batch, momentum, published))


def choose_pooled_norm(steps: int) -> Choice:
    """Whether the projector normalizes its input: without, short runs collapse."""
    return (
        Choice(True, f"{steps} steps are few: without it embeddings collapse")
        if steps < SHORT_RUN
        else Choice(False, f"as published for long runs, here {steps} steps")
    )


def count_regions(facts: DataFacts, shapes: np.ndarray, region: Sequence[int] | None) -> int:
    """How many training images there are; of volumes, how many regions fill them."""
    if region is None or facts.spatial_dims == 2:
        return facts.training
    each = np.maximum(1.0, (shapes / np.asarray(region)).prod(axis=1))
    return int(each.mean() * facts.training)


def count_windows(shapes: np.ndarray, patch: Sequence[int], overlap: float) -> float:
    """Windows of a sliding window over one image, in the mean."""
    stride = np.maximum(1, np.asarray(patch) * (1 - overlap))
    return float((1 + np.ceil(np.maximum(0, shapes - patch) / stride)).prod(axis=1).mean())
