"""TransVW's discriminative part: which visual word is it?"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ..metrics import COLLAPSED
from ..networks.encoder_decoder import feature_channels
from ..networks.heads import ProjectionHead
from ..utils.errors import InputError
from .moco import AT_CHANCE
from .objective import Objective, ObjectiveInputs


class VisualWords(Objective):
    """Classification of cubes by their visual word, of TransVW (Haghighi et al., 2021, https://arxiv.org/abs/2102.10680).

    The head is that of the authors' Keras code. There is one view and no state besides the weights.

    Attributes:
        classes: C, number of words, at least 2.
        hidden_size: width of the head.
    """

    def __init__(self, network: nn.Module, classes: int, hidden_size: int = 1024, *, pooled_norm: bool = False) -> None:
        super().__init__()
        if classes < 2:
            raise InputError(f"classes must be at least 2, got {classes}")
        self.classes = classes
        self.head = ProjectionHead(feature_channels(network), hidden_size, classes, pooled_norm)

    def forward(self, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Cross-entropy of a batch with its ``word``, int64 in [0, C), (B,), which the data set gives.

        Returns:
            ``accuracy`` is the share of cubes whose word has the highest logit (chance is 1 / C), ``query`` the
            logits scaled to unit length, (B, C): equal where every cube gets the same word.
        """
        if "word" not in inputs.views:
            raise InputError("VisualWords needs the word of each image, which WordDataset gives")
        logits = self.head.raw(inputs.deepest)
        word = inputs.views["word"].to(logits.device, non_blocking=True)
        accuracy = (logits.detach().argmax(dim=1) == word).float().mean()
        return {"loss": F.cross_entropy(logits, word), "accuracy": accuracy, "query": F.normalize(logits, dim=1)}

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Whether every cube gets the same word, or words are guessed.

        The accuracy is at chance where its odds are less than twice those of a guess: for 44 words below 0.044.
        """
        alike = ", and all cubes get the same answer" if metrics.get("collapse", 0.0) > COLLAPSED else ""
        if metrics["accuracy"] < AT_CHANCE / (AT_CHANCE + self.classes - 1):
            return (
                f"the {self.classes} visual words are recognized no better than by guessing (accuracy "
                f"{metrics['accuracy']:.4f}{alike}); try pooled_norm True or a lower learning_rate, and look "
                "at words.png"
            )
        return None
