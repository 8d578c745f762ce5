"""What every discriminative objective has: a common call, state that is not learned by gradient, a verdict."""

import itertools
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import encoder_only
from ..distributed import gather
from ..errors import InputError


class Objective(nn.Module):
    """What trainer and evaluator ask of a discriminative objective: heads, state and a loss.

    Heads and state are parameters and buffers. ``forward`` changes nothing but batch norm; ``update`` is called after
    each optimizer step and never in validation.

    Attributes:
        skip_connections: whether the decoder sees the finer maps of the encoder; the trainer decodes accordingly.
        needs_decoder: whether ``forward`` needs the maps of the decoder, even where nothing is restored.
        figures: names of the scalars that ``forward`` returns besides ``loss``: recorded, averaged over an epoch.
        progress: share of the training that is done, in [0, 1]; set by the trainer before each step.
    """

    skip_connections = True
    needs_decoder = False
    figures: tuple[str, ...] = ("accuracy",)
    progress = 0.0

    def forward(
        self,
        network: nn.Module,
        views: Mapping[str, Tensor],
        features: list[Tensor],
        maps: list[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            network: the U-Net, not wrapped, for objectives that encode further views with it.
            views: what ``Views`` returns, ``seed`` (B,) and whatever else the data set gives.
            features: the network's feature maps of the query view, fine to coarse.
            maps: the decoder's maps of the query view, coarse to fine; None where nothing is decoded.

        Returns:
            ``loss``, the scalars of ``figures``, and where there are any, ``query`` and ``key``: embeddings of unit
            length, (B, D), of two views, that validation compares.
        """
        raise NotImplementedError

    def momentum_at(self, progress: float) -> float:
        """Momentum of a following branch after ``progress``, in [0, 1], of the training; 0 where there is none."""
        return 0.0

    def update(self, network: nn.Module, key: Tensor | None, progress: float = 0.0) -> None:
        """Change the state that is not learned by gradient; ``key`` holds this process's keys since the last step."""

    def ailment(self, figures: Mapping[str, float]) -> str | None:
        """What an epoch's figures say is wrong, one sentence in the objective's own terms; None where nothing is.

        Args:
            figures: means over the epoch: ``figures`` of this objective, and ``collapse`` (``monitors.collapse``).
        """
        return None

    def second_view(self, views: Mapping[str, Tensor]) -> Tensor:
        """The view ``key`` of what ``Views`` returns.

        Raises:
            InputError: if there is none.
        """
        if "key" not in views:
            raise InputError(
                f"{type(self).__name__} compares the views of an image: views_per_image must be at least 2, got 1"
            )
        return views["key"]


class KeyBranch(Objective):
    """What MoCo and BYOL share: an encoder and a projector that follow those that learn, without a gradient.

    Attributes:
        projector: embeddings (B, D) of the deepest map; learns.
        key_projector: follows it.
        key_encoder: follows the network's encoder; there is no decoder.
        momentum: of the key branch at the start.
        final_momentum: at the end, reached along a cosine.
        average_buffers: whether batch-norm statistics of the key branch follow the network's too, instead of its own.
    """

    projector: nn.Module
    key_projector: nn.Module
    momentum: float
    final_momentum: float
    average_buffers: bool

    def add_key_branch(self, network: nn.Module, key_projector: nn.Module) -> None:
        """Begin to follow the network's encoder and ``self.projector``; ``key_projector`` is built like the latter."""
        self.key_projector = key_projector
        self.key_projector.load_state_dict(self.projector.state_dict())
        self.key_encoder = encoder_only(network)
        self.key_encoder.requires_grad_(False)
        self.key_projector.requires_grad_(False)

    def momentum_at(self, progress: float) -> float:
        """Momentum of the key branch after ``progress``, in [0, 1], of the training."""
        return annealed(self.momentum, self.final_momentum, progress)

    def update(self, network: nn.Module, key: Tensor | None, progress: float = 0.0) -> None:
        """After the optimizer's step: move the key branch towards the network; ``key`` is not used."""
        share = 1 - self.momentum_at(progress)
        follow(self.key_encoder, network, share, self.average_buffers)
        follow(self.key_projector, self.projector, share, self.average_buffers)


def pooled(features: Tensor) -> Tensor:
    """Mean of each channel over all voxels, (B, C), of maps (B, C, *spatial), in float32 at least.

    Half precision would round away what little the averages of different images differ by after instance norm, before
    a batch norm can enlarge it.
    """
    return features.flatten(2).mean(2, dtype=torch.promote_types(features.dtype, torch.float32))


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
        return F.normalize(self.raw(features), dim=1)

    def raw(self, features: Tensor) -> Tensor:
        """Embeddings before they get unit length."""
        return super().forward(pooled(features)).float()


class GlobalAverage(nn.Module):
    """Mean of each channel over all voxels."""

    def forward(self, features: Tensor) -> Tensor:
        """Averages (B, C) of maps (B, C, *spatial)."""
        return pooled(features)


def head(*widths: int, last_bias: bool = True, last_norm: bool = False) -> nn.Sequential:
    """Linear layers of these widths with batch norm and ReLU between them.

    Args:
        widths: of input, hidden layers and output.
        last_bias: whether the last layer has a bias; the others have none, as a batch norm follows.
        last_norm: whether the output is batch-normalized too, without scale and shift.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias and not last_norm))
    return nn.Sequential(*layers, *([nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else []))


def pooled_head(
    *widths: int, pooled_norm: bool = False, last_bias: bool = True, last_norm: bool = False
) -> nn.Sequential:
    """A ``head`` that takes maps (B, C, *spatial), of which it sees the averages of the channels.

    Args:
        widths: see ``head``.
        pooled_norm: whether the averages are batch-normalized first, which networks with instance norm need (see
            ``Projector``).
        last_bias: see ``head``.
        last_norm: see ``head``.
    """
    first = [GlobalAverage(), *([nn.BatchNorm1d(widths[0], affine=False)] if pooled_norm else [])]
    return nn.Sequential(*first, *head(*widths, last_bias=last_bias, last_norm=last_norm))


def deviation(embeddings: Tensor) -> Tensor:
    """How far embeddings are spread: mean standard deviation of unit embeddings' components times sqrt(D).

    Of the batch of all processes. 1 where they are spread evenly over all directions, 0 where all are equal (Chen and
    He, 2021, https://arxiv.org/abs/2011.10566, section 4.1).

    Args:
        embeddings: any length, shape (B, D).
    """
    unit = F.normalize(gather(embeddings.detach().float()), dim=1)
    return unit.std(dim=0, correction=0).mean() * math.sqrt(unit.shape[1])


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, share: float, buffers: bool) -> None:
    """Move each parameter of ``slow`` by ``share`` towards that of the same name in ``fast``; buffers if asked to."""
    source: dict[str, Tensor] = dict(fast.named_parameters())
    target: dict[str, Tensor] = dict(slow.named_parameters())
    if buffers:
        source |= fast.named_buffers()
        target |= {name: b for name, b in slow.named_buffers() if b.dtype.is_floating_point}
    torch._foreach_lerp_(list(target.values()), [source[name] for name in target], share)


def check_momentum(**values: float) -> None:
    """Refuse momenta, given by name, that are outside of [0, 1].

    Raises:
        InputError: names the first.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} must lie in [0, 1], got {value}")


def annealed(start: float, end: float, progress: float) -> float:
    """What goes from ``start`` to ``end`` along half a cosine while ``progress`` goes from 0 to 1."""
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2
