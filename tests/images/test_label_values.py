"""What values of label maps mean, on counts that are written down and on JPEG that Pillow makes."""

import io

import numpy as np
import pytest
from finetune_bundle import config
from PIL import Image

from dira_monai.images.label_values import DEFAULT_THRESHOLD, are_gray, check_threshold, count_values
from dira_monai.utils.errors import InputError

NAMES = ["background", "lung"]
SOFT = dict.fromkeys(range(0, 256, 15), 10)  # 18 values, as edges are that were drawn four times as fine


def jpeg(*levels, quality):
    """Values of four nested squares of 64, 48, 32 and 16 pixels, of these levels, after Pillow's JPEG."""
    array = np.zeros((64, 64), np.uint8)
    for index, level in enumerate(levels, 1):
        array[3 + 8 * index : -8 * index, 8 * index : -8 * index - 3] = level
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=quality)
    return count_values(np.array(Image.open(stream)))


@pytest.mark.parametrize(
    ("counts", "file", "gray"),
    [
        ({0: 90, 255: 10}, "a.png", False),
        ({0: 90, 1: 5, 255: 10}, "a.png", False),  # 255: not to be looked at
        (dict.fromkeys([*range(20), 255], 5), "a.png", False),
        (dict.fromkeys(range(100), 5), "a.png", False),
        (dict.fromkeys(range(118), 5), "a.nii.gz", False),  # TotalSegmentator
        (dict.fromkeys([0, *range(1000, 2036)], 5), "a.mgz", False),  # FreeSurfer
        (SOFT, "a.png", True),
        (jpeg(255, quality=75), "a.JPG", True),
        (jpeg(255, quality=75), "a.png", True),  # stored anew
        (dict.fromkeys(np.linspace(0, 1, 50), 5), "a.nii.gz", True),
    ],
)
def test_classes_are_told_from_gray_values(counts, file, gray):
    assert are_gray(counts, [file]) == gray


@pytest.mark.parametrize("quality", [50, 75, 95, 100])
def test_noise_of_jpeg_is_no_class_and_a_third_level_is(quality):
    assert check_threshold(jpeg(255, quality=quality), ["a.jpg"], 127, NAMES) == ""
    told = check_threshold(jpeg(128, 255, quality=quality), ["a.jpg"], 127, NAMES)
    assert "most at 128: label_threshold 127 makes two classes of perhaps more" in told


SEVERAL = "--label_threshold None and a class name for each value"


@pytest.mark.parametrize(
    ("values", "threshold", "sentence"),
    [
        (
            [0, 1],
            127,
            "lung of none and background of the others; give --label_threshold 0.5, where all but 0 is lung.",
        ),
        (
            [0, 1, 255],
            127,
            "lung of 255 and background of the others; give --label_threshold 0.5, where all but 0 is lung, "
            f'--label_threshold 128, where 255 alone is, or {SEVERAL} with --label_values "[0, 1, 255]".',
        ),
        (
            [0, 128, 255],
            127,
            f'--label_threshold 191.5, where 255 alone is, or {SEVERAL} with --label_values "[0, 128, ',
        ),
        ([0, 1, 2, 3], 127, f"--label_threshold 2.5, where 3 alone is, or {SEVERAL}."),
        ([0, 1, 2], 2, "lung of none"),
    ],
)
def test_a_threshold_that_may_be_wrong_is_refused_with_what_mends_it(values, threshold, sentence):
    with pytest.raises(InputError) as caught:
        check_threshold(dict.fromkeys(values, 7), ["a.png"], threshold, NAMES)
    assert f"{values[1]} (7 voxels)" in str(caught.value)
    assert sentence in str(caught.value)


def test_a_threshold_of_ones_own_is_told():
    told = check_threshold({0: 9, 1: 5, 2: 4}, ["a.nii.gz"], 0, NAMES)
    assert told.endswith("0 (9 voxels), 1 (5 voxels), 2 (4 voxels), and label_threshold 0 makes lung of 1, 2")
    assert check_threshold({0: 9, 255: 5}, ["a.png"], 127, NAMES) == ""


def test_the_default_is_that_of_the_bundle():
    assert config(("segmentation", 2), "train")["label_threshold"] == DEFAULT_THRESHOLD
