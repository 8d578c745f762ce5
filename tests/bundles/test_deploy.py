"""Exported fine-tuning bundles as MONAI Deploy takes them: a scripted network and its config, on an image in memory."""

import json

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
    copy_bundle,
    infer,
    write_picture,
    write_volume,
)
from monai.bundle import ConfigParser
from monai.data import MetaTensor, load_net_with_metadata
from PIL import Image


def export(bundle):
    """The TorchScript of the bundle with its configs inside."""
    file = bundle / "models/model.ts"
    configs = {name: str(bundle / f"configs/{name}.json") for name in ("inference", "metadata")}
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(file),
        ckpt_file=str(bundle / "models/model.pt"),
        config_file=configs["inference"],
        meta_file=configs["metadata"],
    )
    return file


def deploy(file, image):
    """What Deploy's operator for bundles computes: it reads and writes by itself, so these transforms are taken out."""
    network, _, extra = load_net_with_metadata(str(file), map_location="cpu", more_extra_files=("inference.json",))
    config = json.loads(extra["inference.json"])
    for part in ("preprocessing", "postprocessing"):
        transforms = config[part]["transforms"]
        config[part]["transforms"] = [t for t in transforms if not t["_target_"].startswith(("LoadImage", "SaveImage"))]
    parser = ConfigParser(config | {"device": "cpu"})
    parser.parse()
    before, inferer, behind = map(parser.get_parsed_content, ("preprocessing", "inferer", "postprocessing"))
    entry = before({"image": image})
    with torch.no_grad():
        entry["pred"] = inferer(entry["image"][None], network.eval())[0]
    return behind(entry)["pred"]


def in_memory(path):
    """The image with spatial axes alone, as Deploy's operator makes it from a series or a file."""
    if path.suffix == ".png":
        values, affine = np.asarray(Image.open(path)).T, np.eye(3)
    else:
        file = nib.load(path)
        values, affine = file.get_fdata(), file.affine
    return MetaTensor(torch.tensor(values.astype(np.float32)), affine, {"original_channel_dim": "no_channel"})


KINDS = [
    (SEGMENTATION_3D, "scan.nii.gz", write_volume),
    (SEGMENTATION_2D, "film.png", write_picture),
    (CLASSIFICATION_3D, "scan.nii.gz", write_volume),
    (CLASSIFICATION_2D, "film.png", write_picture),
]


def check_deployed(bundle, path, folder, classes):
    """The exported network and config give for an image what the bundle's inference writes, which is returned."""
    pred = deploy(export(bundle), in_memory(path))
    file = infer(bundle, path, folder)
    if file.suffix == ".csv":
        _, *told = file.read_text().splitlines()[-1].split(",")
        assert len(told) == classes
        np.testing.assert_allclose(pred.flatten(), [float(value) for value in told], atol=1e-5)
        return told
    saved = np.asarray(Image.open(file)).T if file.suffix == ".png" else nib.load(file).get_fdata()
    np.testing.assert_array_equal(pred.squeeze(), saved)  # in 2D without its channel
    return saved


@pytest.mark.parametrize(("name", "image", "write"), KINDS, ids=[name for name, _, _ in KINDS])
def test_the_exported_network_and_config_give_what_the_inference_writes(name, image, write, tmp_path):
    write(tmp_path / image)
    bundle = copy_bundle(name, tmp_path)
    result = check_deployed(bundle, tmp_path / image, tmp_path / "own", len(SMALL[name]["class_names"]))
    assert len(np.unique(result)) > 1  # else any place would do
