"""PCRLv2: every level of a decoder without skip connections compares views and restores the image."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from ..losses.contrastive import negative_cosine
from ..metrics import COLLAPSED, embedding_std
from ..networks.encoder_decoder import decoder_channels, decoder_maps, downsampling, encode, without_skips
from ..networks.heads import global_average_pool, mlp
from ..networks.size_checks import check_patch_size
from ..utils.errors import InputError
from ..utils.seeded_random import SampleRandom
from .objective import Objective, ObjectiveInputs

SPREAD_LOST = 0.5  # batch norm gives 1; less only where the averages differ by less than its epsilon
LINEAR = ("linear", "bilinear", "trilinear")


class Pair(NamedTuple):
    """Two views, by their places, that are compared at a level, by its place."""

    first: int
    second: int
    level: int


class LevelHead(nn.Module):
    """Embedding z and prediction p from a map of C channels of the decoder.

    Attributes:
        norm: batch norm of the map's average, which gives z.
        predictor: Linear C to 2C, batch norm, ReLU, Linear back, which gives p.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.predictor = mlp(channels, 2 * channels, channels)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and predictions, both (B, C), of maps (B, C, *spatial)."""
        embedding = self.norm(global_average_pool(features))
        return embedding, self.predictor(embedding)


def restorer(spatial_dims: int, channels: int, image_channels: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU, 1x1 convolution: logits of an image of the size of the decoder's map."""
    return nn.Sequential(
        Convolution(spatial_dims, channels, channels, adn_ordering="NA", norm="batch", act="relu"),
        Convolution(spatial_dims, channels, image_channels, kernel_size=1, conv_only=True),
    )


class PCRLv2(Objective):
    """Preservational contrastive learning, version 2 (Zhou et al., TPAMI 2023, https://arxiv.org/abs/2301.00772).

    The loss is L_glob + L_loc + w_mid beta MSE_mid: query and key at one random level of the decoder, each small view
    with both at random levels of their own, and the restoration by a middle level. That of the output itself is the
    trainer's. The levels follow from the number of steps done and nothing else, so all processes draw the same; in
    validation every level is used and the mean taken, so that epochs can be compared.

    Attributes:
        levels: places of the decoder's maps that have heads, 0 the coarsest; None: all.
        middle_weight: w_mid.
    """

    skip_connections = False
    needs_decoder = True
    metrics = ("global", "local", "middle", "beta", "deviation")
    step: Tensor

    def __init__(self, network: nn.Module, levels: Sequence[int] | None = None, middle_weight: float = 1.0) -> None:
        super().__init__()
        *channels, image_channels = decoder_channels(network)
        self.levels = tuple(range(len(channels)) if levels is None else levels)
        if not self.levels or len({*self.levels}) < len(self.levels) or not {*self.levels} <= {*range(len(channels))}:
            raise InputError(
                f"levels must be different numbers from 0 to {len(channels) - 1}, one for each map of the decoder "
                f"that is used, got {list(self.levels)}"
            )
        dims = len(downsampling(network))
        self.heads = nn.ModuleList(LevelHead(channels[level]) for level in self.levels)
        self.restorers = nn.ModuleList(restorer(dims, channels[level], image_channels) for level in self.levels)
        self.middle_weight = middle_weight
        self.register_buffer("step", torch.zeros([], dtype=torch.long))

    @property
    def beta(self) -> float:
        """Weight of the restoration at a middle level: 1 at the start of the training, 0 at its end."""
        return (1 + math.cos(math.pi * self.progress)) / 2

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Loss of a batch, of its views ``target``, ``key`` and ``local``.

        Returns:
            The loss's parts ``global`` and ``local``, in [-1, 1], ``middle`` (before ``beta``) and ``beta``;
            ``deviation`` (``embedding_std``) of the queries; ``query`` and ``key``, z of the coarsest level in use.
        """
        local = self._local_views(inputs)
        network, maps = inputs.network, inputs.maps
        if maps is None:
            maps = decoder_maps(network, without_skips(inputs.features))
        of_query = [maps[level] for level in self.levels]
        of_local = [m.unflatten(0, local.shape[:2]).unbind(1) for m in self._pyramid(network, local.flatten(0, 1))]
        pyramids = [of_query, self._pyramid(network, inputs.views["key"]), *zip(*of_local, strict=True)]
        whole, parts = self._pairs(local.shape[1])
        coarsest = min(range(len(self.levels)), key=self.levels.__getitem__)
        needed = [(view, coarsest) for view in (0, 1)] + [(v, p.level) for p in whole + parts for v in p[:2]]
        heads = {(v, level): self.heads[level](pyramids[v][level]) for v, level in dict.fromkeys(needed)}
        losses = {"global": _mean_loss(heads, whole), "local": _mean_loss(heads, parts)}
        losses["middle"] = self._middle(of_query, [pair.level for pair in whole], inputs.views["target"])
        loss = losses["global"] + losses["local"] + self.beta * self.middle_weight * losses["middle"]
        query, key = (F.normalize(heads[view, coarsest][0], dim=1) for view in (0, 1))
        metrics = {"beta": loss.new_tensor(self.beta), "deviation": embedding_std(query)}
        return losses | metrics | {"loss": loss, "query": query, "key": key}

    def _local_views(self, inputs: ObjectiveInputs) -> Tensor:
        """The small views, (B, L, C, *spatial), once all that is needed has been found to be there."""
        views = inputs.views
        if "key" not in views or "local" not in views:
            raise InputError("PCRLv2 compares two views and small ones: set views_per_image 2, local_crop, local_count")
        try:
            check_patch_size(inputs.network, views["local"].shape[3:])
        except InputError as error:
            raise InputError(f"local_crop: {error}") from error
        return views["local"]

    def _pyramid(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """The decoder's maps of the levels that are used, without skip connections."""
        maps = decoder_maps(network, without_skips(encode(network, images)))
        return [maps[level] for level in self.levels]

    def _pairs(self, count: int) -> tuple[list[Pair], list[Pair]]:
        """Pairs of query (0) and key (1), and of these and ``count`` small views (from 2), with their levels."""
        views = [(0, 1), *product((0, 1), range(2, count + 2))]
        if self.training:
            share = SampleRandom(self.step.cpu()[None]).uniform(len(views))[0]
            pairs = [Pair(*two, int(s * len(self.levels))) for two, s in zip(views, share, strict=True)]
            return pairs[:1], pairs[1:]
        pairs = [Pair(*two, level) for two in views for level in range(len(self.levels))]
        return pairs[: len(self.levels)], pairs[len(self.levels) :]

    def _middle(self, pyramid: list[Tensor], levels: list[int], target: Tensor) -> Tensor:
        """Mean squared error of the target and of what the levels restore."""
        errors = []
        for level in levels:
            logits = self.restorers[level](pyramid[level]).float()
            image = F.interpolate(logits, size=target.shape[2:], mode=LINEAR[target.ndim - 3]).sigmoid()
            errors.append(F.mse_loss(image, target))
        return torch.stack(errors).mean()

    @torch.no_grad()
    def update(self, network: nn.Module, key: Tensor | None, progress: float = 0.0) -> None:
        """The next step draws its own levels."""
        self.step += 1

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether the embeddings of the decoder's coarsest level have collapsed.

        Batch norm makes embeddings of two images opposite, whatever they are, so batches of 2 always count as such.
        """
        if metrics["deviation"] < SPREAD_LOST:
            return (
                f"the decoder's coarsest level is the same for every image (deviation {metrics['deviation']:.3f} of "
                "PCRLv2's embeddings, healthy is near 1); try a lower learning_rate"
            )
        if metrics.get("collapse", 0.0) > COLLAPSED:
            return (
                f"PCRLv2's embeddings of all images lie on one line (collapse {metrics['collapse']:.3f} of 1), as they "
                "must in batches of 2; try a greater batch_size or a lower learning_rate"
            )
        return None


def _mean_loss(heads: Mapping[tuple[int, int], tuple[Tensor, Tensor]], pairs: Sequence[Pair]) -> Tensor:
    """Mean over the pairs of half the sum of both directions."""
    losses = []
    for first, second, level in pairs:
        (z1, p1), (z2, p2) = heads[first, level], heads[second, level]
        losses.append((negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2)
    return torch.stack(losses).mean()
