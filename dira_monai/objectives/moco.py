"""Momentum contrast: a key branch that follows the network, and a queue of its keys."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses.contrastive import check_temperature, contrastive_accuracy, info_nce
from ..metrics import COLLAPSED
from ..networks.encoder_decoder import encode, feature_channels
from ..networks.heads import ProjectionHead
from ..utils.distributed import gather
from .objective import MomentumBranch, ObjectiveInputs

LOGGER = logging.getLogger(__name__)
AT_CHANCE = 2  # times the odds of a guess


class MoCo(MomentumBranch):
    """Momentum contrast, version 2 (Chen et al., 2020, https://arxiv.org/abs/2003.04297): DiRA's discriminative part.

    The key branch has no decoder, validation neither moves it nor fills the queue, and a batch may be of any size,
    since the queue wraps around; the published DiRA code differs in all three.

    Attributes:
        queue_size: K, number of keys kept as negatives.
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
        queue_size: int = 65536,
        temperature: float = 0.2,
        momentum: float = 0.999,
        final_momentum: float | None = None,
        group_size: int = 32,
        pooled_norm: bool = False,
        average_buffers: bool = False,
    ) -> None:
        super().__init__(momentum, momentum if final_momentum is None else final_momentum, average_buffers)
        check_temperature(temperature)
        channels = feature_channels(network)
        self.temperature = temperature
        self.group_size = group_size
        head = (channels, hidden_size or channels, embedding_size, pooled_norm)
        self.projector = ProjectionHead(*head)
        self.add_key_branch(network, ProjectionHead(*head))
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, embedding_size), dim=1))
        self.register_buffer("pointer", torch.zeros([], dtype=torch.long))

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
        """As torch does, but of a queue of another length the newest keys are taken over."""
        old = state_dict.get(prefix + "queue")
        if old is not None and len(old) != len(self.queue) and old.shape[1:] == self.queue.shape[1:]:
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
