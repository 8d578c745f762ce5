"""The fine-tuning bundles in MONAI Label's own inference task, without a server: ``make label-test``."""

import pytest
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

pytest.importorskip("monailabel", reason="MONAI Label is not installed here; make label-test has it")

from monailabel.tasks.infer.bundle import BundleInferTask


def ask(bundle, image):
    """The file that Label leaves, if any, and what it says."""
    return BundleInferTask(str(bundle), {})({"model": bundle.name, "image": str(image), "device": "cpu"})


@pytest.mark.parametrize("spacing", [[1.5, 1.5, 1.5], None])
def test_labels_of_a_volume_lie_where_the_volume_lies(tmp_path, spacing):
    bundle = copy_bundle(SEGMENTATION_3D, tmp_path, spacing=spacing)
    write_volume(tmp_path / "scan.nii.gz")
    file, told = ask(bundle, tmp_path / "scan.nii.gz")
    assert told["label_names"] == {"blob": 1, "core": 2}
    expected = infer(bundle, tmp_path / "scan.nii.gz", tmp_path / "own")
    check_volume(file, expected, tmp_path / "scan.nii.gz")


def test_labels_of_a_picture_have_its_pixels(tmp_path):
    bundle = copy_bundle(SEGMENTATION_2D, tmp_path)
    write_picture(tmp_path / "film.png")
    file, told = ask(bundle, tmp_path / "film.png")
    assert told["label_names"] == {"blob": 1}
    check_picture(file, infer(bundle, tmp_path / "film.png", tmp_path / "own"), tmp_path / "film.png")


@pytest.mark.parametrize(
    ("name", "image", "write"),
    [(CLASSIFICATION_2D, "film.png", write_picture), (CLASSIFICATION_3D, "scan.nii.gz", write_volume)],
)
def test_classes_have_the_probabilities_of_the_bundle(tmp_path, name, image, write):
    bundle = copy_bundle(name, tmp_path)
    write(tmp_path / image)
    file, told = ask(bundle, tmp_path / image)
    assert file is None
    check_probabilities(told, infer(bundle, tmp_path / image, tmp_path / "own"), SMALL[name]["class_names"])
