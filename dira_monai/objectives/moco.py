"""Momentum contrast: a key branch that follows the network, and a queue of its keys."""

import logging
import math
from collections.abc import Mapping, Sized
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses.contrastive import check_temperature, contrastive_accuracy, info_nce
from ..metrics import COLLAPSED
from ..networks.encoder_decoder import encode, feature_channels
from ..networks.heads import ProjectionHead
from ..utils.distributed import gather, rank
from .objective import MomentumBranch, ObjectiveInputs

LOGGER = logging.getLogger(__name__)
AT_CHANCE = 2  # times the odds of a guess, or its share of a set
MOMENTUM, QUEUE = 0.999, 65536  # published, for 200 epochs of ImageNet in batches of 256
LEFT = 0.05  # of its random start that the key branch may keep
FORGOTTEN = 0.25  # of the run, after which it has
MEMORY = 0.25  # of the key branch's memory 1 / (1 - m), that the queue spans: 256 steps at 0.999, as published
STEPS = 256  # of keys that the published queue holds


def momentum_for(steps: int, published: float = MOMENTUM) -> tuple[float, str]:
    """Momentum of the key branch, m, with which m^(steps / 4) is at most 0.05: it forgets its random start in time.

    Returns:
        Of a run of so many steps, and the reason; no more than ``published``.
    """
    value = LEFT ** (1 / max(1.0, FORGOTTEN * steps))
    if value >= published:
        return published, f"as published: {published:g}^{steps} leaves nothing of the random start"
    value = math.floor(value * 10000) / 10000
    return value, f"of the random start {LEFT:.0%} are left after a quarter of {steps} steps"


def queue_for(images: int, batch: int, momentum: float, published: int | None = None) -> tuple[int, str]:
    """Keys of the queue: no more than half of the images, and no older than the key branch's memory.

    Args:
        images: for training, or regions of them that differ.
        batch: images of an optimizer step, of which the queue is a multiple.
        momentum: of the key branch.
        published: no more than this; None: than 256 batches.

    Returns:
        The number, and the reason.
    """
    steps = max(1, int(MEMORY / max(1e-9, 1 - momentum)))
    limits = {
        "as published": STEPS * batch if published is None else published,
        f"half of {images} images or regions: a query rarely meets its own image": images // 2,
        f"{steps} steps, a quarter of what the key branch remembers": steps * batch,
    }
    reason = min(limits, key=limits.__getitem__)
    return max(batch, limits[reason] // batch * batch), reason


def _count_regions(dataset: Sized) -> int:
    return getattr(dataset, "regions", None) or len(dataset)


class MoCo(MomentumBranch):
    """Momentum contrast, version 2 (Chen et al., 2020, https://arxiv.org/abs/2003.04297): DiRA's discriminative part.

    The key branch has no decoder, validation neither moves it nor fills the queue, and a batch may be of any size,
    since the queue wraps around; the published DiRA code differs in all three.

    Attributes:
        queue_size: K, number of keys kept as negatives; None: ``queue_for`` chooses it when a training begins.
        momentum: None: ``momentum_for`` chooses it likewise.
        final_momentum: None: ``momentum`` all the time.
        group_size: keys are computed in shuffled groups of about this many, each with batch statistics of its own, so
            that a query cannot find its key by shared statistics. Stands for MoCo's shuffling across GPUs. Smaller
            batches, down to 8, are halved.
    """

    resized_on_load = ("queue",)
    queue: Tensor
    pointer: Tensor

    def __init__(
        self,
        network: nn.Module,
        embedding_size: int = 128,
        hidden_size: int | None = None,
        *,
        queue_size: int | None = QUEUE,
        temperature: float = 0.2,
        momentum: float | None = MOMENTUM,
        final_momentum: float | None = None,
        group_size: int = 32,
        pooled_norm: bool = False,
        average_buffers: bool = False,
    ) -> None:
        start = MOMENTUM if momentum is None else momentum
        super().__init__(start, start if final_momentum is None else final_momentum, average_buffers)
        given = {"momentum": momentum, "final_momentum": final_momentum, "queue": queue_size}
        self.open = {name: value is None for name, value in given.items()}
        check_temperature(temperature)
        channels = feature_channels(network)
        self.temperature = temperature
        self.group_size = group_size
        head = (channels, hidden_size or channels, embedding_size, pooled_norm)
        self.projector = ProjectionHead(*head)
        self.add_key_branch(network, ProjectionHead(*head))
        self.register_buffer("queue", F.normalize(torch.randn(queue_size or STEPS, embedding_size), dim=1))
        self.register_buffer("pointer", torch.zeros([], dtype=torch.long))

    def fit_to(self, steps: int, dataset: Sized, batch: int) -> None:
        """Momentum and queue where they were left open; a warning where a given queue has images several times."""
        told = []
        if self.open["momentum"]:
            self.momentum, reason = momentum_for(steps)
            self.final_momentum = self.momentum if self.open["final_momentum"] else self.final_momentum
            told.append(f"momentum {self.momentum:g} ({reason})")
        if self.open["queue"]:
            size, reason = queue_for(_count_regions(dataset), batch, self.momentum)
            self.queue = F.normalize(torch.randn(size, self.queue.shape[1]), dim=1).to(self.queue)
            self.open["queue"] = False
            told.append(f"queue_size {size} ({reason})")
        elif len(self.queue) > len(dataset) and len(self.queue) > (images := _count_regions(dataset)):
            LOGGER.warning(
                f"queue_size {len(self.queue)} with {images} training images: each query meets its own image "
                f"{len(self.queue) / images:.1f} times among its negatives; queue_size None takes "
                f"{queue_for(images, batch, self.momentum)[0]}"
            )
        if told and rank() == 0:
            print(f"MoCo: {', '.join(told)}")

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Contrastive loss of a batch, of the views ``key``, which ``seed`` shuffles.

        Returns:
            ``accuracy`` is the share of queries nearest to their own key; chance is 1 / (1 + K).
        """
        query = self.projector(inputs.deepest)
        key = self._keys(self.second_view(inputs), inputs.views["seed"])
        loss = info_nce(query, key, self.queue, self.temperature)
        accuracy = contrastive_accuracy(query.detach(), key, self.queue)
        return {"loss": loss, "accuracy": accuracy, "query": query, "key": key}

    @torch.no_grad()
    def _keys(self, view: Tensor, seeds: Tensor) -> Tensor:
        """Embeddings of the second view by the key branch, shape (B, D); seeds are random, so their order shuffles."""
        groups = max(1, min(2, len(view) // 4), len(view) // self.group_size) if self.training else 1
        order = seeds.argsort().to(view.device, non_blocking=True)
        parts = [self.key_projector(encode(self.key_encoder, part)[-1]) for part in view[order].tensor_split(groups)]
        return torch.cat(parts)[order.argsort()]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """As torch does, but of a queue of another length the newest keys are taken over, and all where it is open."""
        old = state_dict.get(prefix + "queue")
        if old is not None and self.open["queue"]:
            self.queue = self.queue.new_empty(old.shape)
        elif old is not None and len(old) != len(self.queue) and old.shape[1:] == self.queue.shape[1:]:
            LOGGER.info(f"a queue of {len(old)} keys is loaded into one of {len(self.queue)}")
            newest = old.roll(-int(state_dict[prefix + "pointer"]), dims=0)[-len(self.queue) :].to(self.queue)
            older = self.queue[: len(self.queue) - len(newest)]
            pointer = torch.zeros_like(self.pointer)  # the oldest keys now stand first
            state_dict = state_dict | {prefix + "queue": torch.cat([older, newest]), prefix + "pointer": pointer}
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether the queries are all alike, or no longer find their keys.

        Collapse is asked first, since the accuracy does not show it: where all embeddings have one direction, it
        drifts, and a new key is nearer to its query than the old ones of the queue. The accuracy is at chance where its
        odds are less than twice those of a guess, 1 to K: below 0.2 for K = 8 and 0.0005 for K = 4,096.
        """
        size = len(self.queue)
        if metrics["collapse"] > COLLAPSED:
            return (
                f"the query embeddings of MoCo have collapsed to one direction (collapse {metrics['collapse']:.3f} of "
                f"1), whatever the accuracy ({metrics['accuracy']:.4f}) says; try pooled_norm True or a lower "
                "learning_rate"
            )
        if metrics["accuracy"] < AT_CHANCE / (AT_CHANCE + size):
            return (
                f"the queries of MoCo find their own key among {size} others no better than by guessing (accuracy "
                f"{metrics['accuracy']:.4f}); try pooled_norm True or a lower learning_rate"
            )
        return None

    @torch.no_grad()
    def update(self, network: nn.Module, key: Tensor | None, progress: float = 0.0) -> None:
        """Move the key branch towards the network and put ``key``, (n, D), of all processes into the queue."""
        super().update(network, key, progress)
        if key is not None:
            self.enqueue(gather(key))

    @torch.no_grad()
    def enqueue(self, key: Tensor) -> None:
        """Overwrite the oldest keys; more keys than the queue holds leave the last ones."""
        size = len(self.queue)
        places = (self.pointer + torch.arange(len(key), device=key.device)) % size
        self.queue[places[-size:]] = key[-size:].to(self.queue.dtype)
        self.pointer.copy_((self.pointer + len(key)) % size)
