"""BYOL: the network predicts how a moving average of itself embeds the other view."""

import torch
from torch import Tensor, nn

from ..losses.contrastive import negative_cosine
from ..networks.encoder_decoder import encode, feature_channels
from ..networks.heads import mlp, pooled_mlp
from .objective import MomentumBranch, ObjectiveInputs
from .siamese import Siamese


class BYOL(MomentumBranch, Siamese):
    """Bootstrap your own latent (Grill et al., 2020, https://arxiv.org/abs/2006.07733).

    The target network, called key branch here as in MoCo, is encoder and projector. Its batch-norm statistics are of
    its own passes unless ``average_buffers`` is True.

    Attributes:
        hidden_size: width of projector and predictor; None: twice the encoder's deepest number of channels, the
            paper's 4,096 for a ResNet-50.
    """

    def __init__(
        self,
        network: nn.Module,
        embedding_size: int = 256,
        hidden_size: int | None = None,
        *,
        momentum: float = 0.996,
        final_momentum: float = 1.0,
        pooled_norm: bool = False,
        average_buffers: bool = False,
    ) -> None:
        super().__init__(momentum, final_momentum, average_buffers)
        channels = feature_channels(network)
        hidden = hidden_size or 2 * channels
        self.projector = pooled_mlp(channels, hidden, embedding_size, pooled_norm=pooled_norm)
        self.predictor = mlp(embedding_size, hidden, embedding_size)
        self.add_key_branch(network, pooled_mlp(channels, hidden, embedding_size, pooled_norm=pooled_norm))

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Loss of a batch: squared distances of unit predictions and unit keys, of both directions, in [0, 8] (eq. 2).

        Returns:
            ``deviation`` is that of the network's embeddings (``embedding_std``), ``query`` the prediction of the
            first view, ``key`` the key branch's embedding of the second.
        """
        z1, z2 = self.both(inputs)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        with torch.no_grad():
            views = inputs.views["query"], inputs.views["key"]
            key1, key2 = (self.key_projector(encode(self.key_encoder, view)[-1]) for view in views)
        loss = 4 + 2 * (negative_cosine(p1, key2) + negative_cosine(p2, key1))
        return self.outputs(loss, z1, p1, key2)
