"""The base classes of objectives, and their inputs."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass

from torch import Tensor, nn

from ..networks.encoder_decoder import encode, encoder_only
from ..networks.momentum import cosine_schedule, update_momentum
from ..utils.errors import InputError


@dataclass
class ObjectiveInputs:
    """What an objective may use of a batch.

    Attributes:
        network: the U-Net, not wrapped, for objectives that encode further views with it.
        views: of ``Views`` or ``GridViews``, ``seed`` (B,), and whatever the data set gives.
        features: the network's feature maps of the query view, fine to coarse.
        maps: the decoder's, likewise, coarse to fine; None where nothing is decoded.
    """

    network: nn.Module
    views: Mapping[str, Tensor]
    features: list[Tensor]
    maps: list[Tensor] | None = None

    @property
    def deepest(self) -> Tensor:
        """The network's deepest map of the query view, (B, C, *spatial)."""
        return self.features[-1]

    def encode(self, view: Tensor) -> Tensor:
        """The network's deepest map of another view."""
        return encode(self.network, view)[-1]


class Objective(nn.Module):
    """What trainer and evaluator ask of a discriminative objective: heads, state and a loss.

    Heads and state are parameters and buffers. ``forward`` changes nothing but batch norm; ``update`` is called after
    each optimizer step and never in validation. Objectives are built with ``network``, a stock MONAI U-Net whose
    encoder learns and which stays outside. Where they take them, ``embedding_size`` is D, ``hidden_size`` the width of
    the projector (None: the encoder's deepest number of channels), ``temperature`` divides cosine similarities, and
    ``pooled_norm`` has the pooled features batch-normalized first, which networks with instance norm need. Formulas,
    deviations from the published code and what to watch of each stand in docs/objectives.md.

    Attributes:
        skip_connections: whether the decoder sees the finer maps of the encoder; the trainer decodes accordingly.
        needs_decoder: whether ``forward`` needs the maps of the decoder, even where nothing is restored.
        metrics: names of the scalars that ``forward`` returns besides ``loss``: recorded, averaged over an epoch.
        progress: share of the training that is done, in [0, 1]; set by the trainer before each step.
    """

    skip_connections = True
    needs_decoder = False
    metrics: tuple[str, ...] = ("accuracy",)
    progress = 0.0

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Loss of a batch.

        Returns:
            ``loss``, the scalars of ``metrics``, and where there are any, ``query`` and ``key``: embeddings of unit
            length, (B, D), of two views, that validation compares.
        """
        raise NotImplementedError

    def momentum_at(self, progress: float) -> float:
        """Momentum of a following branch after ``progress``, in [0, 1], of the training; 0 where there is none."""
        return 0.0

    def update(self, network: nn.Module, key: Tensor | None, progress: float = 0.0) -> None:
        """Change the state that is not learned by gradient; ``key`` holds this process's keys since the last step."""

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """The problem that an epoch's metrics show, one sentence in the method's own terms; None where there is none.

        Args:
            metrics: means over the epoch: ``metrics`` of this objective, and ``collapse`` (``rank_collapse``).
        """
        return None

    def fit_to(self, steps: int, dataset: Sized, batch: int) -> None:
        """Choose what was left open for a training of so many optimizer steps of ``batch`` images; say it.

        Args:
            steps: of the whole training.
            dataset: of the training images; ``regions``, where it has them, is the number of regions of these that do
                not overlap, and asking for it may read an image.
            batch: images of a step, of all processes.
        """

    def second_view(self, inputs: ObjectiveInputs) -> Tensor:
        """The view ``key``, which must be there."""
        if "key" not in inputs.views:
            raise InputError(
                f"{type(self).__name__} compares the views of an image: views_per_image must be at least 2, got 1"
            )
        return inputs.views["key"]


class MomentumBranch(Objective):
    """What MoCo and BYOL share: an encoder and a projector that follow those that learn, without a gradient.

    Attributes:
        projector: embeddings (B, D) of the deepest map; learns.
        key_projector: follows it.
        key_encoder: follows the network's encoder; there is no decoder.
        momentum: of the key branch at the start, in [0, 1].
        final_momentum: at the end, reached along a cosine (Grill et al., 2020, https://arxiv.org/abs/2006.07733).
        average_buffers: whether batch-norm statistics of the key branch follow the network's too, instead of its own.
    """

    projector: nn.Module
    key_projector: nn.Module

    def __init__(self, momentum: float, final_momentum: float, average_buffers: bool) -> None:
        super().__init__()
        for name, value in (("momentum", momentum), ("final_momentum", final_momentum)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} must lie in [0, 1], got {value}")
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.average_buffers = average_buffers

    def add_key_branch(self, network: nn.Module, key_projector: nn.Module) -> None:
        """Begin to follow the network's encoder and ``self.projector``, like which ``key_projector`` is built."""
        self.key_projector = key_projector
        self.key_projector.load_state_dict(self.projector.state_dict())
        self.key_encoder = encoder_only(network)
        self.key_encoder.requires_grad_(False)
        self.key_projector.requires_grad_(False)

    def momentum_at(self, progress: float) -> float:
        """Momentum of the key branch."""
        return cosine_schedule(self.momentum, self.final_momentum, progress)

    def update(self, network: nn.Module, key: Tensor | None, progress: float = 0.0) -> None:
        """Move the key branch towards the network; ``key`` is not used."""
        share = 1 - self.momentum_at(progress)
        update_momentum(self.key_encoder, network, share, self.average_buffers)
        update_momentum(self.key_projector, self.projector, share, self.average_buffers)
