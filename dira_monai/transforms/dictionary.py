"""This package's transforms as MONAI dictionary transforms."""

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor

from ..utils.seeded_random import SampleRandom
from .compose import Distortion


class RandDistortiond(MapTransform, RandomizableTransform):
    """Any of this package's crops, photometric changes and distortions in a MONAI pipeline on the CPU.

    All keys of a sample get the same change. Seeded by ``set_random_state`` like every MONAI transform.

    Attributes:
        distortion: such as ``InPainting()``; sees a batch of one.
        prob: share of the samples that are changed.
    """

    def __init__(
        self,
        keys: KeysCollection,
        distortion: Distortion,
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.distortion = distortion
        self.seed = 0

    def randomize(self, data: object = None) -> None:
        """Draw whether the sample is changed, and its seed."""
        super().randomize(data)
        self.seed = int(self.R.randint(np.iinfo(np.int32).max))

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The sample with its keys changed: float images in [0, 1], shape (C, *spatial)."""
        sample = dict(data)
        self.randomize()
        for key in self.key_iterator(sample) if self._do_transform else ():
            image = convert_to_tensor(sample[key], dtype=torch.float32, track_meta=False)
            changed = self.distortion(image[None], SampleRandom(torch.tensor([self.seed])))[0]
            sample[key] = convert_to_dst_type(changed, sample[key])[0]
        return sample
