"""Distillation: the encoder learns to say what a teacher's says."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from ..metrics import retrieval_accuracy
from ..networks.encoder_decoder import downsampling, feature_channels
from ..networks.heads import global_average_pool
from ..utils.errors import InputError
from .objective import Objective, ObjectiveInputs

DISTANCES = ("cosine", "smooth_l1")
MODES = {2: "bilinear", 3: "trilinear"}
UNRELATED = 0.05  # similarity below which the student says nothing of the teacher


class Distillation(Objective):
    """Regression of a teacher's deepest map from the network's, cell by cell (FitNets, Romero et al., 2015).

    A convolution of one voxel goes from the network's channels to the teacher's (https://arxiv.org/abs/1412.6550). The
    teacher's features have mean 0 and deviation 1 in each channel, without which all point one way, and are read at
    the network's cells by linear interpolation. The distance is 1 - cosine or smooth L1, the two of AM-RADIO (Ranzinger
    et al., 2024, https://arxiv.org/abs/2312.06709).

    Attributes:
        distance: cosine or smooth_l1, the mean over cells, and of the latter over channels.
    """

    metrics = ("accuracy", "similarity")
    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, statistics: Tensor, distance: str = "cosine") -> None:
        """Begin with ``statistics``, mean and deviation of the teacher's D channels, (2, D), of DistillationDataset."""
        super().__init__()
        if distance not in DISTANCES:
            raise InputError(f"distance must be {' or '.join(DISTANCES)}, got {distance!r}")
        self.distance = distance
        dims = len(downsampling(network))
        mean, deviation = statistics.float().reshape(2, 1, -1, *[1] * dims)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(deviation > 1e-6 * mean.abs(), 1 / deviation, 0.0))
        self.head = Convolution(dims, feature_channels(network), statistics.shape[1], kernel_size=1, conv_only=True)

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Loss of a batch, of its ``teacher``, maps (B, D, *cells), which the data set gives.

        Returns:
            ``similarity`` is the mean cosine of both maps (a guess has 0), ``accuracy`` the share of images whose mean
            over the cells is nearest to that of their own teacher's map; ``query`` and ``key`` are these means, scaled
            to unit length, (B, D).
        """
        if "teacher" not in inputs.views:
            raise InputError("Distillation needs the teacher's map of each image, which DistillationDataset gives")
        found = self.head(inputs.deepest).float()
        target = inputs.views["teacher"].to(found.device, non_blocking=True).float()
        target = F.interpolate((target - self.mean) * self.scale, found.shape[2:], mode=MODES[found.ndim - 2])
        similarity = F.cosine_similarity(found, target, dim=1).mean()
        loss = 1 - similarity if self.distance == "cosine" else F.smooth_l1_loss(found, target)
        query, key = (F.normalize(global_average_pool(maps), dim=1) for maps in (found, target))
        accuracy = found.new_tensor(retrieval_accuracy(query, key))
        return {"loss": loss, "similarity": similarity, "accuracy": accuracy, "query": query, "key": key}

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether the maps of both have nothing to do with each other."""
        if metrics["similarity"] < UNRELATED:
            return (
                f"the network says nothing of what the teacher says (similarity {metrics['similarity']:.3f}); try more "
                "epochs or another learning_rate"
            )
        return None
