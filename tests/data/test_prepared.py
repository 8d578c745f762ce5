"""Prepared images: what is stored is what the bundle would have made, read crop by crop."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from scan_files import noise, write_image, write_nifti
from trainer_runs import assert_same

from dira_monai import InputError, PretrainDataset, check_prepared, load_datalist
from dira_monai.bundle.config import read_config
from dira_monai.data.datasets import read_stored
from dira_monai.data.image_setup import ImageSetup
from dira_monai.data.prepared import body_box, prepare, verify
from dira_monai.data.preprocessing import ToStoraged, pretrain_preprocessing
from dira_monai.datalists.io import write_datalist
from dira_monai.datalists.unlabeled import make_datalist

ROOT = Path(__file__).parents[2]
BUNDLES = {n: ROOT / "bundles" / f"dira_pretrain_{n}d" for n in (2, 3)}
VALUES = {
    2: {"patch_size": [32, 32], "region_size": [40, 40], "image_size": 64},
    3: {"patch_size": [16, 16, 16], "region_size": [24, 24, 16], "intensity_range": [0, 255]},
}


@pytest.fixture
def lists(tmp_path):
    """Datalists of four images each, in 2D and 3D."""
    for number in range(4):
        write_image(tmp_path / "2" / f"case{number}.png", noise(70, 50, seed=number).astype(np.uint8))
        write_nifti(tmp_path / "3" / f"case{number}.nii.gz", noise(30, 28, 20, seed=number).astype(np.int16))
    for dims in (2, 3):
        write_datalist(make_datalist(tmp_path / str(dims), spatial_dims=dims), tmp_path / f"{dims}.json")
    return {dims: tmp_path / f"{dims}.json" for dims in (2, 3)}


def store(lists, dims, output, **options):
    values = VALUES[dims] | options.pop("overrides", {})
    return prepare(lists[dims], output, config=BUNDLES[dims], overrides=values, **options)


def setup_of(dims):
    return ImageSetup(read_config(BUNDLES[dims], VALUES[dims]))


def test_stored_images_are_those_that_the_bundle_makes(lists, tmp_path, spatial_dims):
    made = store(lists, spatial_dims, tmp_path / "out")
    setup = setup_of(spatial_dims)
    entries = [*made["training"], *made["validation"]]
    assert len(entries) == 4
    for entry in entries:
        stored, wanted = read_stored(tmp_path / "out" / entry["image"]), setup.load(entry["source"])
        assert stored.dtype == wanted.dtype
        assert torch.equal(stored, wanted)
        unit = wanted.double() / (255 if wanted.dtype == torch.uint8 else 1)
        assert entry["shape"] == list(wanted.shape[1:])
        assert entry["stored_mean"] == pytest.approx(float(unit.mean()), rel=1e-5)
        assert entry["stored_deviation"] == pytest.approx(float(unit.std(correction=0)), rel=1e-5)


def test_the_bundle_of_the_package_needs_no_folder(lists, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = prepare(lists[2], tmp_path / "out", overrides=VALUES[2])
    stored = read_stored(tmp_path / "out" / made["training"][0]["image"])
    assert torch.equal(stored, setup_of(2).load(made["training"][0]["source"]))


ALIKE = [
    {"image_size": 64, "intensity_range": [0, 255]},  # larger than the file
    {"image_size": 24, "intensity_range": None, "region_size": [20, 40, 30]},
    {"image_size": None, "intensity_range": [40, 200], "in_channels": 3, "region_size": [51, 75, 21]},
]


@pytest.mark.parametrize("values", ALIKE)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_plain_tensors_give_what_the_transforms_of_monai_give(tmp_path, spatial_dims, values, dtype):
    path = tmp_path / {2: "a.png", 3: "a.nii"}[spatial_dims]
    array = noise(*(50, 70, 20)[:spatial_dims])
    write_image(path, array.astype(np.uint8)) if spatial_dims == 2 else write_nifti(path, array.astype(np.int16))
    wanted = {"in_channels": 1, "axcodes": None, "spacing": None} | values
    region = wanted.pop("region_size", [8] * 3)[:spatial_dims]
    stock = Compose([pretrain_preprocessing(region, **wanted), ToStoraged("image", dtype)])
    found = pretrain_preprocessing(region, dtype, **wanted)({"image": str(path)})
    assert type(found["image"]) is torch.Tensor
    assert found.keys() == {"image"}
    assert_same(found["image"], stock({"image": str(path)})["image"])


def test_crops_equal_those_of_images_in_memory(lists, tmp_path, spatial_dims):
    store(lists, spatial_dims, tmp_path / "out")
    listed, setup = load_datalist(tmp_path / "out/datalist.json"), setup_of(spatial_dims)
    region = VALUES[spatial_dims]["region_size"]
    stored = PretrainDataset(listed["training"], None, region, cache="ram", min_foreground=0.5)
    plain = [{"image": entry["source"]} for entry in listed["training"]]
    memory = PretrainDataset(plain, setup.preprocessing, region, cache="none", min_foreground=0.5)
    for seed in range(6):
        first, second = stored[seed % 3, seed], memory[seed % 3, seed]
        assert torch.equal(first["image"], torch.as_tensor(second["image"]))
        assert list(first["image"].shape[1:]) == region


def test_a_crop_may_be_written_to_and_the_file_stays(lists, tmp_path):
    made = store(lists, 2, tmp_path / "out")
    path = tmp_path / "out" / made["training"][0]["image"]
    before = path.read_bytes()
    read_stored(path).zero_()
    assert path.read_bytes() == before


def test_a_stopped_run_goes_on(lists, tmp_path, monkeypatch):
    whole = store(lists, 2, tmp_path / "whole")
    loaded, load = [], ImageSetup.load

    def dies(self, image):
        loaded.append(image)
        if len(loaded) == 3:
            raise KeyboardInterrupt
        return load(self, image)

    monkeypatch.setattr(ImageSetup, "load", dies)
    with pytest.raises(KeyboardInterrupt):
        store(lists, 2, tmp_path / "out", workers=1)
    assert not (tmp_path / "out/datalist.json").exists()
    assert len(list((tmp_path / "out/images").glob("*.npy"))) == 2
    assert store(lists, 2, tmp_path / "out", workers=1) == whole
    assert len(loaded) == 3 + 2


def test_a_changed_source_is_prepared_again(lists, tmp_path):
    first = store(lists, 2, tmp_path / "out")
    write_image(Path(first["training"][0]["source"]), noise(70, 50, seed=9).astype(np.uint8))
    second = store(lists, 2, tmp_path / "out")
    assert first["training"][0]["sha256"] != second["training"][0]["sha256"]
    assert first["training"][1:] == second["training"][1:]


def test_the_store_may_be_moved(lists, tmp_path):
    store(lists, 2, tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "other")
    listed = load_datalist(tmp_path / "other/datalist.json")
    assert all(Path(entry["image"]).parent == tmp_path / "other/images" for entry in listed["training"])


def test_damage_is_found(lists, tmp_path):
    made = store(lists, 2, tmp_path / "out")
    assert list(verify(tmp_path / "out")) == []
    path = tmp_path / "out" / made["training"][1]["image"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert list(verify(tmp_path / "out")) == [str(path)]
    path.write_bytes(content[:100])
    with pytest.raises(InputError, match=rf"{path.name} cannot be read"):
        read_stored(path)


def test_other_settings_are_refused(lists, tmp_path):
    store(lists, 2, tmp_path / "out")
    with pytest.raises(InputError, match="was prepared with image_size 64, now it is 80; name another folder"):
        store(lists, 2, tmp_path / "out", overrides={"image_size": 80})
    (tmp_path / "other/images").mkdir(parents=True)
    with pytest.raises(InputError, match="holds images of something else"):
        store(lists, 2, tmp_path / "other")
    listed = load_datalist(tmp_path / "out/datalist.json")
    check_prepared(listed, [40, 40], image_size=64, intensity_range=(0, 255))
    check_prepared({"training": []}, [40, 40], image_size=1)
    with pytest.raises(InputError, match="prepared with image_size 64, the run has 100"):
        check_prepared(listed, [40, 40], image_size=100)
    with pytest.raises(InputError, match=r"voxels, less than region_size \[64, 64\]"):
        check_prepared(listed, [64, 64], image_size=64)


def test_air_around_the_body_is_cut(lists, tmp_path):
    image = torch.zeros(1, 40, 30, 20)
    image[:, 10:30, 3:5, 19] = 0.5
    assert body_box(image, [8, 8, 8]) == (slice(10, 30), slice(0, 8), slice(12, 20))
    assert body_box(image, [8, 50, 1]) == (slice(10, 30), slice(0, 30), slice(19, 20))
    assert body_box(torch.zeros(1, 9, 7), [3, 3]) == (slice(0, 9), slice(0, 7))
    volume = np.zeros((60, 50, 40), np.int16)
    volume[20:50, 10:40, 5:30] = noise(30, 30, 25).astype(np.int16) + 50
    for number in range(4):
        write_nifti(tmp_path / "3" / f"case{number}.nii.gz", volume)
    made = store(lists, 3, tmp_path / "out", crop_body=True)
    assert {tuple(entry["shape"]) for entry in made["training"]} == {(30, 30, 25)}
    assert json.loads((tmp_path / "out/prepared.json").read_text())["crop_body"] is True


def test_the_commands_say_what_they_did(lists, tmp_path, command):
    folder = str(tmp_path / "out")
    words = ("prepare", str(lists[2]), folder)
    status, out, err = command(*words, "--config", str(BUNDLES[2]), "--overrides", str(VALUES[2]))
    assert (status, err) == (0, "")
    assert "4 images" in out
    assert out.strip().endswith(f"--dataset_dir {folder}")
    assert "all files are what was prepared" in command(*words, "--verify", "True")[1]
    next((tmp_path / "out/images").glob("*.npy")).write_bytes(b"")
    assert "1 files of" in command(*words, "--verify", "True")[0]
    assert "prepare again" in command(*words, "--config", str(BUNDLES[2]), "--overrides", str(VALUES[2]))[0]
