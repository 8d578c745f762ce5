"""Pictures from files by other means."""

from itertools import cycle

import numpy as np
from PIL import Image
from workloads import write_pictures

from .views_2d import Work


def pillow() -> Work:
    """Decoding and resizing alone."""
    files = cycle(write_pictures())

    def work() -> None:
        with Image.open(next(files)) as image:
            np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))

    return work, 1
