"""Files that break after a list was made, in every kind of data set, with workers and without."""

import os
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset
from monai.transforms import Compose, EnsureChannelFirstd, Lambdad, LoadImaged, RandFlipd, Transform
from pretrain_bundle import write_scans
from trainer_runs import assert_same

from dira_monai.data import bad_files
from dira_monai.data.datasets import CheckedCacheDataset, PretrainDataset, SeededCacheDataset
from dira_monai.data.loaders import training_loader
from dira_monai.data.preprocessing import pretrain_preprocessing
from dira_monai.utils.errors import InputError, find_input_error

VALUES = {"in_channels": 1, "axcodes": None, "spacing": None, "intensity_range": [0, 255], "image_size": None}
SUFFIX = {2: "png", 3: "nii.gz"}


def truncate(file):
    file.write_bytes(file.read_bytes()[:100])


def put_nan(file):
    array = np.asarray(nib.load(file).dataobj, np.float32)
    array[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(array, np.eye(4)), file)


def pretraining(data, dims, cache, **options):
    return PretrainDataset(
        data, pretrain_preprocessing([8] * dims, "uint8", **VALUES), [8] * dims, cache=cache, **options
    )


def finetuning(data, dims, cache, **options):
    steps = [LoadImaged("image"), EnsureChannelFirstd("image", channel_dim="no_channel"), RandFlipd("image", prob=0.5)]
    return SeededCacheDataset(data, Compose(steps), cache_rate=float(cache == "ram"), progress=False, **options)


def prepared(data, dims, cache, **options):
    """Files as the command prepare leaves them, made once."""
    for item in data:
        if not Path(f"{item['image']}.npy").exists() and Path(item["image"]).exists():
            np.save(f"{item['image']}.npy", np.random.default_rng(0).random((1, *[16] * dims)).astype(np.float16))
    return PretrainDataset([{"image": f"{item['image']}.npy"} for item in data], None, [8] * dims, **options)


@pytest.fixture
def data(tmp_path, request):
    dims = request.param
    write_scans(tmp_path, dims, count=4, size=16)
    return [{"image": str(tmp_path / f"case{number}.{SUFFIX[dims]}")} for number in range(4)]


def dims_of(data):
    return 2 if data[0]["image"].endswith("png") else 3


DAMAGES = [
    (2, Path.unlink, "does not exist"),
    (2, truncate, "cannot be read: "),
    (2, lambda file: file.write_bytes(b""), r"is empty \(0 bytes\)"),
    (3, Path.unlink, "does not exist"),
    (3, truncate, "cannot be read: it is cut off"),
    (3, put_nan, "holds 1 NaN or infinite v"),
]


@pytest.mark.parametrize(("data", "damage", "reason"), DAMAGES, indirect=["data"])
@pytest.mark.parametrize("cache", ["ram", "none"])
@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_a_broken_image_is_named(data, make, cache, damage, reason):
    damage(Path(data[2]["image"]))
    with pytest.raises(InputError, match=rf"case2\.{SUFFIX[dims_of(data)]} {reason}.*; mend it or .*_bad_files 1 lets"):
        make(data, dims_of(data), cache)[2, 7]


def remove(item):
    for name in (item["image"], f"{item['image']}.npy"):
        Path(name).unlink(missing_ok=True)


@pytest.mark.parametrize("data", [2, 3], indirect=True)
@pytest.mark.parametrize("cache", ["ram", "none"])
@pytest.mark.parametrize("make", [pretraining, finetuning, prepared])
def test_the_next_image_takes_the_place_of_a_broken_one(data, make, cache, monkeypatch):
    told = []
    monkeypatch.setattr(bad_files.LOGGER, "warning", told.append)
    whole = make(data, dims_of(data), cache)
    expected = [whole[place, 7]["image"] for place in (0, 3, 3, 3)]
    remove(data[1])
    remove(data[2])
    dataset = make(data, dims_of(data), cache, max_bad_files=2)
    assert_same([dataset[place, 7]["image"] for place in range(4)], expected)
    assert [line.split("; ")[-1] for line in told] == ["number 1 of at most 2", "number 2 of at most 2"]
    remove(data[3])
    if cache == "none" or make is prepared:
        with pytest.raises(InputError, match=r"case3.*\(and 2 files before it\); .*--max_bad_files 3 lets"):
            dataset[3, 7]


@pytest.mark.parametrize("data", [2, 3], indirect=True)
@pytest.mark.parametrize("make", [pretraining, prepared])
def test_regions_are_counted_where_the_first_image_is_broken(data, make):
    make(data, dims_of(data), "none")
    remove(data[0])
    assert make(data, dims_of(data), "none", max_bad_files=1).regions == 4 * 2 ** dims_of(data)


@pytest.mark.parametrize("data", [3], indirect=True)
def test_nan_in_a_prepared_image_is_named(data):
    dataset = prepared(data, 3, "none")
    array = np.load(f"{data[1]['image']}.npy")
    array[...] = np.nan
    np.save(f"{data[1]['image']}.npy", array)
    with pytest.raises(InputError, match=r"case1\.nii\.gz\.npy: the transforms make NaN"):
        dataset[1, 7]


@pytest.mark.parametrize("data", [2], indirect=True)
@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_workers_say_one_sentence_and_count_together(data, make):
    loader = training_loader(make(data, 2, "none", max_bad_files=1), 2, epoch_length=8, num_workers=2)
    Path(data[1]["image"]).unlink()
    assert len(list(loader)) == 8
    Path(data[2]["image"]).unlink()
    with pytest.raises(InputError) as caught:
        list(loader)
    assert str(caught.value).startswith(data[2]["image"])
    assert "\n" not in str(caught.value)


class EndItself(Transform):
    """What the system does to a worker where the memory is full."""

    def __call__(self, item):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_sentence():
    loader = training_loader(PretrainDataset([{}] * 4, EndItself(), [8], cache="none"), 2, num_workers=1)
    with pytest.raises(RuntimeError) as caught:
        list(loader)
    assert str(find_input_error(caught.value)).startswith("a process that loads images was ended by the system (")


@pytest.mark.parametrize("data", [2], indirect=True)
def test_a_fault_of_a_transform_is_no_fault_of_a_file(data):
    broken = Compose([LoadImaged("image"), Lambdad("image", lambda image: image.no_such_name)])
    with pytest.raises(RuntimeError, match="applying transform"):
        CheckedCacheDataset(data, broken, cache_rate=0, max_bad_files=3)[0]
    invalid = Compose([LoadImaged("image"), Lambdad("image", lambda image: image * torch.nan)])
    with pytest.raises(InputError, match=r"case0\.png: the transforms make NaN or infinite values of it"):
        CheckedCacheDataset(data, invalid, cache_rate=0)[0]


@pytest.mark.parametrize("data", [2, 3], indirect=True)
def test_without_broken_files_it_is_monais_data_set(data):
    steps = Compose(
        [LoadImaged("image"), EnsureChannelFirstd("image", channel_dim="no_channel"), RandFlipd("image", prob=0.5)]
    )
    for rate in (0.0, 0.5, 1.0):
        drawn = []
        for kind in (CacheDataset, CheckedCacheDataset):
            dataset = kind(data, steps, cache_rate=rate, progress=False)
            steps.set_random_state(seed=5)
            drawn.append([dataset[place]["image"] for place in (0, 1, 2, 3, -1)])
        assert_same(*drawn)
