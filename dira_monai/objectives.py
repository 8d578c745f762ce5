"""Discriminative objectives: heads, state and loss of learning by telling images apart."""

import logging
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import encode, encoder_only, feature_channels
from .distributed import gather
from .errors import InputError
from .losses import contrastive_accuracy, info_nce

LOGGER = logging.getLogger(__name__)


class Projector(nn.Sequential):
    """Embeddings of unit length from the deepest feature map: global average, Linear, ReLU, Linear (MoCo-v2).

    With ``pooled_norm`` the averages are batch-normalized first. Networks with instance norm need it: there the average
    of a channel is nearly the same for every image, and without it embeddings collapse to one direction.
    """

    def __init__(self, in_channels: int, hidden_size: int, embedding_size: int, pooled_norm: bool = False) -> None:
        layers = [nn.Linear(in_channels, hidden_size), nn.ReLU(), nn.Linear(hidden_size, embedding_size)]
        super().__init__(*([nn.BatchNorm1d(in_channels, affine=False)] if pooled_norm else []), *layers)

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, D), float32, of feature maps (B, C, *spatial)."""
        return F.normalize(super().forward(features.flatten(2).mean(2)).float(), dim=1)


class Objective(nn.Module):
    """What trainer and evaluator ask of a discriminative objective: heads, state and a loss.

    Heads and state are parameters and buffers. ``forward(network, views, features)`` returns at least ``loss``,
    ``accuracy``, ``query`` and ``key`` and changes nothing but batch norm; ``update`` is called after each optimizer
    step and never in validation.
    """

    def momentum_at(self, progress: float) -> float:
        """Momentum of a following branch after ``progress``, in [0, 1], of the training; 0 where there is none."""
        return 0.0

    def update(self, network: nn.Module, key: Tensor, progress: float = 0.0) -> None:
        """Change the state that is not learned by gradient; ``key`` holds this process's keys since the last step."""


class MoCo(Objective):
    """Momentum contrast, version 2 (Chen et al., 2020, https://arxiv.org/abs/2003.04297): DiRA's discriminative part.

    Corrections of the published DiRA code: the key branch is an encoder and a projector, no decoder; ``forward`` moves
    nothing but batch norm, so validation neither moves the key branch nor fills the queue; a batch may be of any size,
    since the queue wraps around.

    Attributes:
        network: stock MONAI U-Net; its encoder is copied, the network itself stays outside.
        embedding_size: D.
        hidden_size: width of the projector; None: the encoder's deepest number of channels.
        queue_size: K, number of keys kept as negatives.
        temperature: divisor of the cosine similarities.
        momentum: of the key branch at the start.
        final_momentum: at the end, reached along a cosine (Grill et al., 2020, https://arxiv.org/abs/2006.07733); None:
            ``momentum`` all the time.
        group_size: keys are computed in shuffled groups of about this many, each with batch statistics of its own, so
            that a query cannot find its key by shared statistics. Stands for MoCo's shuffling across GPUs.
        pooled_norm: whether the projector batch-normalizes the pooled features first; for networks with instance norm.
        average_buffers: whether batch-norm statistics of the key branch follow the network's too, instead of its own.
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
        super().__init__()
        if temperature <= 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        final_momentum = momentum if final_momentum is None else final_momentum
        for name, value in (("momentum", momentum), ("final_momentum", final_momentum)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} must lie in [0, 1], got {value}")
        channels = feature_channels(network)
        self.temperature = temperature
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.group_size = group_size
        self.average_buffers = average_buffers
        head = (channels, hidden_size or channels, embedding_size, pooled_norm)
        self.projector = Projector(*head)
        self.key_projector = Projector(*head)
        self.key_projector.load_state_dict(self.projector.state_dict())
        self.key_encoder = encoder_only(network)
        self.key_encoder.requires_grad_(False)
        self.key_projector.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, embedding_size), dim=1))
        self.register_buffer("pointer", torch.zeros([], dtype=torch.long))

    def forward(self, network: nn.Module, views: dict[str, Tensor], features: list[Tensor]) -> dict[str, Tensor]:
        """Contrastive loss of a batch.

        Args:
            network: unused here; objectives that encode the second view with the network itself need it.
            views: of which ``key`` (B, C, *spatial) and ``seed`` (B,) are used.
            features: the network's feature maps of the query view, fine to coarse.

        Returns:
            ``loss`` and ``accuracy`` (share of queries nearest to their own key; chance is 1 / (1 + K)), scalars;
            ``query`` and ``key``, embeddings of unit length, (B, D).
        """
        query = self.projector(features[-1])
        key = self._keys(views["key"], views["seed"])
        loss = info_nce(query, key, self.queue, self.temperature)
        accuracy = contrastive_accuracy(query.detach(), key, self.queue)
        return {"loss": loss, "accuracy": accuracy, "query": query, "key": key}

    @torch.no_grad()
    def _keys(self, view: Tensor, seeds: Tensor) -> Tensor:
        """Embeddings of the second view by the key branch, shape (B, D); seeds are random, so their order shuffles."""
        groups = max(1, len(view) // self.group_size) if self.training else 1
        order = seeds.argsort().to(view.device, non_blocking=True)
        parts = [self.key_projector(encode(self.key_encoder, part)[-1]) for part in view[order].chunk(groups)]
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

    def momentum_at(self, progress: float) -> float:
        """Momentum of the key branch after ``progress``, in [0, 1], of the training."""
        return self.final_momentum - (self.final_momentum - self.momentum) * (math.cos(math.pi * progress) + 1) / 2

    @torch.no_grad()
    def update(self, network: nn.Module, key: Tensor, progress: float = 0.0) -> None:
        """After the optimizer's step: move the key branch towards the network and put the keys into the queue.

        Args:
            network: the network whose encoder is followed.
            key: all keys since the last step, of this process, shape (n, D).
            progress: share of the training that is done.
        """
        share = 1 - self.momentum_at(progress)
        follow(self.key_encoder, network, share, self.average_buffers)
        follow(self.key_projector, self.projector, share, self.average_buffers)
        self.enqueue(gather(key))

    @torch.no_grad()
    def enqueue(self, key: Tensor) -> None:
        """Overwrite the oldest keys; more keys than the queue holds leave the last ones."""
        size = len(self.queue)
        places = (self.pointer + torch.arange(len(key), device=key.device)) % size
        self.queue[places[-size:]] = key[-size:].to(self.queue.dtype)
        self.pointer.copy_((self.pointer + len(key)) % size)


def follow(slow: nn.Module, fast: nn.Module, share: float, buffers: bool) -> None:
    """Move each parameter of ``slow`` by ``share`` towards that of the same name in ``fast``; buffers if asked to."""
    source: dict[str, Tensor] = dict(fast.named_parameters())
    target: dict[str, Tensor] = dict(slow.named_parameters())
    if buffers:
        source |= fast.named_buffers()
        target |= {name: b for name, b in slow.named_buffers() if b.dtype.is_floating_point}
    torch._foreach_lerp_(list(target.values()), [source[name] for name in target], share)
