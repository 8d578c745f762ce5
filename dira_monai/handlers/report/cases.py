"""What a fine-tuned network makes of each validation case, and the worst, median and best of them as pictures."""

import logging
import math
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Evaluator
from monai.metrics import compute_dice
from PIL import Image
from torch import Tensor

from ...visualize.html import data_uri
from ...visualize.labels import center_of, outline
from ...visualize.tiles import middle_slices

LOGGER = logging.getLogger(__name__)
PICTURES = 1000  # cases of a validation of which a picture is kept
DARK = 40  # gray in place of an image of another shape
SIDE = 360  # of a picture, at most, pixels


class Case(NamedTuple):
    """A validation case."""

    name: str  # of the file
    score: float  # mean Dice of the classes that are there, or mean probability given to what is true; NaN: neither
    truth: tuple[float, ...]  # labels of a classification, (classes,), NaN where not known; of a segmentation empty
    # probabilities of a classification, (classes,); Dice of a segmentation, NaN where the class is missing
    result: tuple[float, ...]
    # the image, of a segmentation with the outline of the truth and the prediction in color; None: not kept
    picture: str | None


class CaseRecorder:
    """Keeps the cases of the evaluator's best epoch, or of the newest one where the best is not known."""

    def __init__(self) -> None:
        self.epoch = 0  # of the cases; 0: none yet
        self.cases: list[Case] = []  # of this epoch
        self.current: list[Case] = []
        self.step = 1  # every so many cases a picture
        self.unknown = False  # whether the evaluator gives something else

    def attach(self, evaluator: Evaluator) -> None:
        """Register for batches and ends of validations."""
        evaluator.add_event_handler(Events.EPOCH_STARTED, self.start)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        evaluator.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, evaluator: Evaluator) -> None:
        """Begin a validation."""
        self.current = []
        sampler = getattr(evaluator.data_loader, "sampler", None)
        self.step = max(1, math.ceil(len(sampler) / PICTURES)) if isinstance(sampler, Sized) else 1

    @torch.no_grad()
    def keep(self, evaluator: Evaluator) -> None:
        """Judge the cases of a batch, which the evaluator gives one by one after a fine-tuning."""
        if self.unknown or not isinstance(evaluator.state.output, list):  # of a pre-training
            return
        try:
            for sample in evaluator.state.output:
                judge = judge_classification if sample["label"].ndim == 1 else judge_segmentation
                self.current.append(judge(sample, len(self.current) % self.step == 0))
        except Exception as error:  # whatever a postprocessing of one's own gives; the training goes on
            self.unknown, self.current = True, []
            LOGGER.warning(f"report.html shows no cases: they are neither classified nor segmented ({error!r})")

    def finish(self, evaluator: Evaluator) -> None:
        """Keep this validation, unless the one that is kept is the best so far."""
        best = evaluator.state.best_metric_epoch
        if self.current and (self.epoch != best or best == evaluator.state.epoch):
            self.epoch, self.cases = evaluator.state.epoch, self.current


def file_of(sample: dict[str, Any]) -> str:
    """The name of the file of a sample's image; empty where it is not known."""
    return Path(str(getattr(sample["image"], "meta", {}).get("filename_or_obj", ""))).name


def judge_segmentation(sample: dict[str, Any], pictured: bool) -> Case:
    """Dice of each class but the background, as ``MeanDice`` computes it.

    Args:
        sample: ``image``, (C, *spatial) in [0, 1]; ``label`` and ``pred``, one channel a class. An image of another
            shape, as in an evaluation in the geometry of the files, is not drawn.
        pictured: whether to draw it.
    """
    truth, pred = (torch.as_tensor(sample[key]) for key in ("label", "pred"))
    dice = compute_dice(pred[None], truth[None], include_background=False)[0]
    picture = None
    if pictured:
        center = center_of(truth[1:].amax(dim=0))
        marked, found = (np.stack([middle_slices(c, center) for c in each]).argmax(axis=0) for each in (truth, pred))
        shown = np.full((*marked.shape, 3), DARK, dtype=np.uint8)
        if sample["image"].shape[1:] == truth.shape[1:]:  # else labels are in the geometry of their files
            shown = _slices(sample["image"], center)
        picture = _draw(outline(shown, marked, found, SIDE // 2))
    return Case(file_of(sample), float(dice.nanmean()), (), tuple(dice.tolist()), picture)


def judge_classification(sample: dict[str, Any], pictured: bool) -> Case:
    """Probabilities beside the truth.

    Args:
        sample: ``image``, (C, *spatial) in [0, 1]; ``label``, 0, 1 or NaN where not known, and ``pred``, (classes,).
        pictured: whether to draw it.
    """
    truth, pred = (torch.as_tensor(sample[key]).float().cpu() for key in ("label", "pred"))
    given = torch.where(truth == 1, pred, 1 - pred)
    known = given[~truth.isnan()]
    score = given[truth == 1].mean() if is_exclusive([truth.tolist()], [pred.tolist()]) else known.mean()
    picture = _draw(_slices(sample["image"], None)) if pictured else None
    return Case(file_of(sample), float(score), tuple(truth.tolist()), tuple(pred.tolist()), picture)


def is_exclusive(truths: Sequence[Sequence[float]], results: Sequence[Sequence[float]]) -> bool:
    """Whether each case has exactly one class and probabilities whose sum is 1."""
    one_hot = all(sorted(truth)[:-1] == [0.0] * (len(truth) - 1) and max(truth) == 1 for truth in truths)
    return one_hot and all(abs(sum(result) - 1) < 1e-3 for result in results)


def _slices(image: Tensor, center: Sequence[int] | None) -> np.ndarray:
    """The image as a picture of 8 bits, (rows, columns, 3); three channels are its colors, else the first is gray."""
    channels = [middle_slices(channel, center) for channel in (image if len(image) == 3 else image[:1])]
    return (np.stack(channels * (3 // len(channels)), axis=-1).clip(0, 1) * 255).round().astype(np.uint8)


def _draw(picture: np.ndarray) -> str:
    return data_uri(Image.fromarray(picture), SIDE)


def choose_cases(cases: Sequence[Case]) -> list[tuple[str, Case]]:
    """Worst, median (the lower one of two) and best of the cases that have a score and a picture."""
    ranked = sorted((c for c in cases if c.picture and not math.isnan(c.score)), key=lambda case: case.score)
    if not ranked:
        return []
    places = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
    return [(name, ranked[place]) for name, place in places.items()]
