"""The pretext tasks of volume fusion and of primitives: which share of another image, or which shape, is it?"""

from collections.abc import Mapping

import torch
from monai.losses import DiceCELoss
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from ..networks.encoder_decoder import decoder_channels, decoder_maps, downsampling
from ..utils.errors import InputError
from .moco import AT_CHANCE
from .objective import Objective, ObjectiveInputs


class FusionSegmentation(Objective):
    """Segmentation of the shares that ``VolumeFusion`` mixed (Wang et al., 2023, https://arxiv.org/abs/2306.16925).

    So it segments the shapes that ``Primitives`` painted (Tadokoro et al., 2023, https://arxiv.org/abs/2401.03665).
    A convolution of one voxel makes logits of the K + 1 classes from the decoder's finest map, so encoder and decoder
    learn, and the network's own output layer does not. Dice and cross-entropy are summed.

    Attributes:
        shares: K, as of the views' ``VolumeFusion``, or the number of shapes.
    """

    needs_decoder = True
    metrics = ("accuracy", "dice")

    def __init__(self, network: nn.Module, shares: int = 4) -> None:
        super().__init__()
        self.shares = shares
        *_, channels, _ = decoder_channels(network)
        self.head = Convolution(len(downsampling(network)), channels, shares + 1, kernel_size=1, conv_only=True)
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True)

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Loss of a batch, of its ``share``, int64 in [0, K], (B, 1, *spatial).

        Returns:
            ``accuracy`` is the mean over the shares of how many of their voxels have them as highest logit (chance is
            1 / (K + 1)), ``dice`` the mean Dice coefficient of the shares above 0, each of the whole batch; shares
            that no voxel has do not count.
        """
        if "share" not in inputs.views:
            raise InputError(
                "FusionSegmentation needs classes of voxels: set views#fusion to VolumeFusion or Primitives"
            )
        maps = decoder_maps(inputs.network, inputs.features) if inputs.maps is None else inputs.maps
        logits, share = self.head(maps[-1]).float(), inputs.views["share"]
        return {"loss": self.loss(logits, share)} | self._agreement(logits.argmax(dim=1), share[:, 0])

    def _agreement(self, guess: Tensor, share: Tensor) -> dict[str, Tensor]:
        """Accuracy and Dice of guessed shares, both (B, *spatial)."""
        classes = self.shares + 1
        table = torch.bincount((share * classes + guess).flatten(), minlength=classes**2).view(classes, classes).float()
        right, true, guessed = table.diagonal(), table.sum(1), table.sum(0)
        present = true > 0
        dice = (2 * right / (true + guessed))[1:][present[1:]]
        return {"accuracy": (right / true)[present].mean(), "dice": dice.mean()}

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether shares are guessed: the odds of the accuracy are less than twice those of a guess."""
        if metrics["accuracy"] < AT_CHANCE / (AT_CHANCE + self.shares):
            return (
                f"the {self.shares + 1} classes of voxels are recognized hardly better than by guessing "
                f"(accuracy {metrics['accuracy']:.3f}); try more epochs, another learning_rate or larger sizes"
            )
        return None
