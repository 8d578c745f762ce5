"""Validation of a pre-training run: how well images are restored and discriminated, on views that never change."""

from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from torch import Tensor

from ..networks.encoder_decoder import encode
from ..objectives.objective import Objective, ObjectiveInputs
from ..transforms.grid_views import GridViews
from ..transforms.views import Views
from .forward import completed, decoded, objective_outputs, prefixed, restored
from .precision import autocast, settle_precision


class DiRAEvaluator(SupervisedEvaluator):
    """Evaluator of restoration and discrimination; it changes no weight and no buffer.

    ``engine.state.output`` holds ``image`` (distorted), ``label`` (target), ``pred`` (restored), all (B, C,
    *patch_size) in [0, 1]; where the objective gives them, ``query`` and ``key``, embeddings of unit length (B, D); and
    the objective's loss and metrics as ``contrastive`` and ``contrastive_...``. Where the views are masked, the visible
    voxels of image and restoration are those of the target, so that metrics concern the masked ones.

    Attributes:
        objective: as in the trainer.
        views: as in the trainer; the data loader's seeds fix them.
        distort: whether the views are distorted, as they are where the trainer restores.
        precision: fp32, bf16, fp16 or auto, as in the trainer.
        kwargs: everything that ``monai.engines.SupervisedEvaluator`` takes.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        views: Views | GridViews,
        distort: bool = True,
        precision: str = "fp32",
        **kwargs: Any,
    ) -> None:
        super().__init__(decollate=False, **kwargs)
        self.objective = objective
        self.views = views
        self.distort = distort
        self.context = autocast(self.state.device, settle_precision(self.state.device, precision))

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Tensor]) -> dict[str, Tensor]:
        """Views, embeddings and restoration of one batch."""
        images, _ = self.prepare_batch(batchdata, self.state.device, self.non_blocking)
        views = self.views(images, batchdata["seed"], distort=self.distort)
        views |= {name: value for name, value in batchdata.items() if name != "image"}
        self.network.eval()
        self.objective.eval()
        with torch.no_grad(), self.context:
            features = encode(self.network, views["query"])
            maps = decoded(self.network, self.objective, features)
            outputs = objective_outputs(self.objective, ObjectiveInputs(self.network, views, features, maps))
            images = {"image": views["query"], "label": views["target"], "pred": restored(self.network, maps)}
        images = {name: completed(image, views) for name, image in images.items()}
        self.state.output = images | prefixed(self.objective, outputs)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output
