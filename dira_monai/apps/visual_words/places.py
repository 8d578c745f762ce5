"""Which visual words there are: a reference patient and a place in the body for each, drawn as in TransVW."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ...utils.errors import InputError, check_integers
from ...utils.seeded_random import SampleRandom, sample_seeds

COUNTS = {"classes": 2, "neighbors": 1, "validation_neighbors": 1, "trials": 1, "scales": 0}  # the least of each
ROUNDING = 1e-6  # voxels, that a distance of centers in shares of the extent may be wrong by


@dataclass(frozen=True)
class WordSettings:
    """How visual words are found; what is given here is TransVW's (Haghighi et al., 2021, https://arxiv.org/abs/2102.10680).

    Two lengths in voxels of its CTs, of 512 x 512 pixels, are shares here, so that they suit other sizes.

    Attributes:
        classes: number of words (44 in the authors' training; their generator makes 200, the published set has 50).
        neighbors: training patients of a word, the reference among them.
        validation_neighbors: validation patients of a word.
        margin: distance of a cube to the border of the image, as a share of its extent: one, or one an axis, of which
            those beyond the image's axes are not used (100 of 512 voxels in the plane, 30 of about 250 slices).
        air_level: normalized intensity below which a voxel is air (-150 HU of -1000 to 1000).
        max_air: largest share of air in a cube of the reference patient.
        min_distance: a place is refused that lies within so many voxels of an earlier word's along every axis.
        trials: places that are drawn before the search ends with an error.
        scales: cubes of other sizes that each training instance has besides the one of the patch's size.
        scale_range: smallest and largest side of these in the plane of the first two axes, in sides of the patch.
        shift: largest shift of their centers in that plane, in sides of the patch (10 of 64 voxels).
        feature_size: size that whole images get for comparing patients; None: twice the patch (128 x 128 x 64).
    """

    classes: int = 44
    neighbors: int = 200
    validation_neighbors: int = 30
    margin: float | Sequence[float] = (0.195, 0.195, 0.12)
    air_level: float = 0.425
    max_air: float = 0.15
    min_distance: float = 5
    trials: int = 200
    scales: int = 2
    scale_range: Sequence[float] = (0.78, 1.25)
    shift: float = 0.156
    feature_size: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name, least in COUNTS.items():
            check_integers(least, **{name: getattr(self, name)})
        margins = [self.margin] if isinstance(self.margin, int | float) else list(self.margin)
        if not margins or not all(0 <= value < 0.5 for value in margins):
            raise InputError(f"margin must be shares in [0, 0.5), got {self.margin!r}.")
        if not 0 <= self.max_air <= 1:
            raise InputError(f"max_air must be a share in [0, 1], got {self.max_air!r}.")
        if len(self.scale_range) != 2 or not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise InputError(f"scale_range must be two rising numbers above 0, got {self.scale_range!r}.")
        if min(self.shift, self.min_distance) < 0:
            raise InputError(
                f"shift and min_distance must be at least 0, got {self.shift!r} and {self.min_distance!r}."
            )

    def margins(self, spatial_dims: int) -> Tensor:
        """The margin of each axis, float64, shape (spatial_dims,).

        Raises:
            InputError: if fewer are given than there are axes.
        """
        if isinstance(self.margin, int | float):
            return torch.full((spatial_dims,), float(self.margin), dtype=torch.float64)
        if len(self.margin) < spatial_dims:
            raise InputError(f"margin must be one share or {spatial_dims}, got {self.margin!r}.")
        return torch.tensor(self.margin[:spatial_dims], dtype=torch.float64)


class Word(NamedTuple):
    """One visual word."""

    reference: int  # number of the training patient
    center: tuple[float, ...]  # of the cube, as shares of the image's extent
    trials: int  # places that were drawn until one was taken


def choose_words(
    load: Callable[[int], Tensor], names: Sequence[str], settings: WordSettings, patch_size: Sequence[int], seed: int
) -> list[Word]:
    """Reference patients and places of all words.

    Patients are drawn without repetition; when all were used, each may be used again. TransVW's generator never forgets
    that a place was too near to an earlier one and wastes the patient's other trials; here each trial is checked by
    itself.

    Args:
        load: the image of a training patient, in [0, 1], (C, *spatial), at least as large as the patch.
        names: of the training patients, for errors.
        settings: which words are sought.
        patch_size: voxels of a cube.
        seed: of all draws.

    Raises:
        InputError: if the margins leave no room, or no place passes in ``trials``.
    """
    rounds = math.ceil(settings.classes / len(names))
    orders = sample_seeds(seed, 0, rounds * len(names)).reshape(rounds, -1).argsort(dim=1)  # as random as its numbers
    seeds = sample_seeds(seed, 1, settings.classes)
    words = list[Word]()
    references = orders.flatten()[: settings.classes].tolist()
    for number, reference in enumerate(tqdm(references, "choosing words", leave=False, disable=None)):
        draws = SampleRandom(seeds[number : number + 1])
        center, trials = _choose(load(reference), draws, words, settings, patch_size, names[reference])
        words.append(Word(reference, center, trials))
    return words


def _choose(
    volume: Tensor,
    draws: SampleRandom,
    earlier: Sequence[Word],
    settings: WordSettings,
    patch_size: Sequence[int],
    name: str,
) -> tuple[tuple[float, ...], int]:
    """Center and number of trials of one word."""
    extent, size = torch.tensor(volume.shape[1:]), torch.tensor(patch_size)
    margin = settings.margins(len(extent)) * extent
    low, high = margin.ceil().long(), (extent - margin).floor().long() - size
    if bool((high < low).any()):
        raise InputError(
            f"patient {name}: margin {settings.margin!r} of an image of {list(volume.shape[1:])} voxels leaves no room "
            f"for a cube of {list(patch_size)}; give a smaller margin or patch_size."
        )
    starts = low + (draws.uniform(settings.trials, len(extent))[0] * (high - low + 1)).long()
    centers = (starts + size / 2).double() / extent
    known = torch.tensor([word.center for word in earlier], dtype=torch.float64).reshape(-1, len(extent))
    distances = ((centers[:, None] - known) * extent).abs().amax(dim=2)  # (trials, earlier words)
    far = (distances > settings.min_distance + ROUNDING).all(dim=1).nonzero().flatten().tolist()
    for trial in far:
        places = (slice(s, s + n) for s, n in zip(starts[trial].tolist(), patch_size, strict=True))
        if (volume[(slice(None), *places)] < settings.air_level).float().mean() <= settings.max_air:
            return tuple(centers[trial].tolist()), trial + 1
    raise InputError(
        f"patient {name}: none of {settings.trials} places can be word {len(earlier)}: in {len(far)} more than "
        f"{settings.max_air:g} of the cube is below air_level {settings.air_level:g}, {settings.trials - len(far)} lie "
        f"within min_distance {settings.min_distance:g} of an earlier word; change one of these, margin, classes or "
        "patch_size."
    )
