"""The fine-tuning bundles in MONAI Label's own inference task, without a server: see label/test_server.py."""

import json
import shutil
import sys
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from label.app import (
    CLASSIFICATION_2D,
    CLASSIFICATION_3D,
    SEGMENTATION_2D,
    SEGMENTATION_3D,
    SMALL,
    check_picture,
    check_probabilities,
    check_volume,
    copy_bundle,
    infer,
    write_picture,
    write_volume,
)
from monai.bundle import ConfigParser
from PIL import Image


@pytest.fixture
def ask():
    """Asks MONAI Label's task for a bundle about an image: the file that it leaves, if any, and what it says."""
    tasks = pytest.importorskip(
        "monailabel.tasks.infer.bundle", reason="MONAI Label is not installed here; make label-test has it"
    )

    def run(bundle, image):
        task = tasks.BundleInferTask(str(bundle), {})
        return task({"model": bundle.name, "image": str(image), "device": "cpu"})

    return run


@pytest.mark.parametrize("name", [SEGMENTATION_3D, CLASSIFICATION_3D])
def test_resampling_is_that_of_spacingd_whatever_else_an_entry_holds(tmp_path, name):
    write_volume(path := tmp_path / "scan.nii.gz")
    content = json.loads((copy_bundle(name, tmp_path) / "configs/inference.json").read_text())
    own = ConfigParser(content).get_parsed_content("preprocessing")
    transforms = content["preprocessing"]["transforms"]
    (place,) = [i for i, transform in enumerate(transforms) if transform["_target_"] == "Lambda"]
    transforms[place] = content["resample"]
    plain = ConfigParser(content).get_parsed_content("preprocessing")
    image, expected = own({"image": str(path), "image_path": "text"})["image"], plain({"image": str(path)})["image"]
    torch.testing.assert_close(image.as_tensor(), expected.as_tensor(), rtol=0, atol=0)
    torch.testing.assert_close(image.affine, expected.affine, rtol=0, atol=0)
    back, expected = (compose.inverse({"image": x})["image"] for compose, x in ((own, image), (plain, expected)))
    assert back.shape[1:] == nib.load(path).shape
    torch.testing.assert_close(back.as_tensor(), expected.as_tensor(), rtol=0, atol=0)


@pytest.mark.parametrize("spacing", [[1.5, 1.5, 1.5], None])
def test_labels_of_a_volume_lie_where_the_volume_lies(ask, tmp_path, spacing):
    bundle = copy_bundle(SEGMENTATION_3D, tmp_path, spacing=spacing)
    write_volume(tmp_path / "scan.nii.gz")
    file, told = ask(bundle, tmp_path / "scan.nii.gz")
    assert told["label_names"] == {"blob": 1, "core": 2}
    expected = infer(bundle, tmp_path / "scan.nii.gz", tmp_path / "own")
    check_volume(file, expected, tmp_path / "scan.nii.gz")


def test_labels_of_a_picture_have_its_pixels(ask, tmp_path):
    bundle = copy_bundle(SEGMENTATION_2D, tmp_path)
    write_picture(tmp_path / "film.png")
    file, told = ask(bundle, tmp_path / "film.png")
    assert told["label_names"] == {"blob": 1}
    check_picture(file, infer(bundle, tmp_path / "film.png", tmp_path / "own"), tmp_path / "film.png")


@pytest.mark.parametrize(
    ("name", "image", "write"),
    [(CLASSIFICATION_2D, "film.png", write_picture), (CLASSIFICATION_3D, "scan.nii.gz", write_volume)],
)
def test_classes_have_the_probabilities_of_the_bundle(ask, tmp_path, name, image, write):
    bundle = copy_bundle(name, tmp_path)
    write(tmp_path / image)
    file, told = ask(bundle, tmp_path / image)
    assert file is None
    check_probabilities(told, infer(bundle, tmp_path / image, tmp_path / "own"), SMALL[name]["class_names"])


def test_the_bundle_of_a_run_is_served_as_it_is(ask, finetuned, tmp_path):
    (task, dims), folder, options = finetuned
    bundle = shutil.copytree(folder / "out/bundle", tmp_path / f"blobs_{task}")
    image = min(Path(options["dataset_dir"], "images").iterdir())
    file, told = ask(bundle, image)
    expected, names = infer(bundle, image, tmp_path / "own"), options["class_names"]
    if task == "classification":
        check_probabilities(told, expected, names)
        return
    assert told["label_names"] == {name: number for number, name in enumerate(names) if number}
    answer, expected = (np.asarray(Image.open(f) if dims == 2 else nib.load(f).dataobj) for f in (file, expected))
    np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize(
    ("name", "write", "suffix"), [(SEGMENTATION_3D, write_volume, ".nii.gz"), (SEGMENTATION_2D, write_picture, ".png")]
)
def test_training_takes_the_lists_of_label_where_every_part_is_built(tmp_path, monkeypatch, name, write, suffix):
    bundle = copy_bundle(name, tmp_path)
    before = torch.load(bundle / "models/model.pt", weights_only=True)
    items = []
    for case in range(4):
        items.append({"image": str(tmp_path / f"scan{case}{suffix}"), "label": str(tmp_path / f"label{case}{suffix}")})
        label = write(items[-1]["image"], case)
        label.to_filename(items[-1]["label"]) if suffix == ".nii.gz" else label.save(items[-1]["label"])
    monkeypatch.setattr(sys, "argv", ["monailabel"])
    overrides = {"bundle_root": str(bundle), "device": "cpu", "train#trainer#max_epochs": 1}
    overrides |= {"train#dataset#data": items[:3], "validate#dataset#data": items[3:]}
    config = str(bundle / "configs/train.json")
    monai.bundle.run(run_id="", config_file=config, **overrides)  # the empty run_id is what the viewers send
    assert not (bundle / "output/phantom").exists()
    after = torch.load(bundle / "models/model.pt", weights_only=True)
    assert any((after[key] - before[key]).abs().max() > 0 for key in before)
    made = bundle / "output/bundle"
    assert (made / "models/model.pt").samefile(bundle / "models/model.pt")
    assert json.loads((made / "configs/inference.json").read_text())["class_names"] == SMALL[name]["class_names"]
    (start,) = json.loads((bundle / "output/run.json").read_text())["starts"]
    assert start["images"] == {"training": 3, "validation": 1}
