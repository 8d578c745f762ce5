"""What MONAI Label is given in the tests: small copies of the fine-tuning bundles, and images to look at."""

import json
import math
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image

ROOT = Path(__file__).parents[2]
SEGMENTATION_3D = "dira_finetune_segmentation_3d"
SEGMENTATION_2D = "dira_finetune_segmentation_2d"
CLASSIFICATION_2D = "dira_finetune_classification_2d"
CLASSIFICATION_3D = "dira_finetune_classification_3d"
SMALL = {  # headers of train.json and inference.json, as a user edits them in the copy that is served
    SEGMENTATION_3D: {
        "network_def#features": [4, 4, 8, 8, 8, 4],
        "patch_size": [32, 32, 16],
        "spacing": [1.5, 1.5, 1.5],
        "class_names": ["background", "blob", "core"],
    },
    SEGMENTATION_2D: {
        "network_def#backbone": "resnet10",
        "patch_size": [32, 32],
        "image_size": [32, 32],
        "class_names": ["background", "blob"],
        "label_threshold": None,  # Label stores class numbers
    },
    CLASSIFICATION_2D: {
        "network_def#_target_": "resnet10",
        "image_size": [32, 32],
        "class_names": ["dark", "bright"],
    },
    CLASSIFICATION_3D: {
        "features": [4, 4, 8, 8, 8, 4],
        "image_size": [32, 32, 32],
        "spacing": [1.5, 1.5, 1.5],
        "class_names": ["dark", "bright"],
    },
}
TRAINING = {"batch_size": 2, "epoch_length": 2, "warmup_epochs": 0, "learning_rate": 0.01}


def copy_bundle(name, folder, **header):
    """A small copy of a bundle with random weights in ``models/model.pt``; its folder."""
    copy = Path(folder) / name
    shutil.copytree(ROOT / "bundles" / name, copy, ignore=shutil.ignore_patterns("*.pt", "output", "prediction"))
    for config in ("train", "inference"):
        allowed = SMALL[name] | header | (TRAINING if config == "train" else {})
        edit(copy / f"configs/{config}.json", allowed)
    names = dict(enumerate(SMALL[name]["class_names"]))
    edit(copy / "configs/metadata.json", {"network_data_format#outputs#pred#channel_def": names})
    torch.save(network(copy / "configs/inference.json").state_dict(), copy / "models/model.pt")
    return copy


def edit(path, values):
    """Set those of the values that the file has."""
    parser = ConfigParser(json.loads(path.read_text()))
    for key, value in values.items():
        if key.split("#")[0] in parser.config:
            parser[key] = value
    path.write_text(json.dumps(parser.config, indent=4))


def network(config):
    """The ``network_def`` of a config with random weights, and a last bias by which every class occurs."""
    torch.manual_seed(0)
    values = json.loads(Path(config).read_text())
    made = ConfigParser(values).get_parsed_content("network_def").eval()
    *_, bias = (parameter for name, parameter in made.named_parameters() if name.endswith("bias"))
    with torch.no_grad():
        size = values["image_size"] or values["patch_size"]
        output = made(torch.linspace(0, 1, math.prod(size)).reshape(1, 1, *size))
        bias -= output[0].flatten(1).mean(1) if output.ndim > 2 else output[0]
    return made


def write_volume(path, seed=0):
    """NIfTI with a bright ball, in an orientation and with voxels that the bundle has to change; its label map."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (36, 40, 20)], indexing="ij"))
    distance = np.sqrt(((grid - np.array([18, 20, 10]).reshape(3, 1, 1, 1)) ** 2).sum(0))
    noise = np.random.default_rng(seed).normal(0, 80, distance.shape)
    affine = np.array([[-2.0, 0, 0, 30], [0, 0, 1.5, -7], [0, 1, 0, 12], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image((900 * (distance < 9) - 400 + noise).astype(np.int16), affine), path)
    return nib.Nifti1Image(((distance < 9).astype(np.uint8) + (distance < 5)).astype(np.uint8), affine)


def write_picture(path, seed=0):
    """PNG of 40 rows and 36 columns with a bright disk; its label map."""
    rows, columns = np.mgrid[:40, :36]
    disk = (rows - 24) ** 2 + (columns - 12) ** 2 < 80
    noise = np.random.default_rng(seed).normal(0, 8, disk.shape)
    Image.fromarray((60 + 120 * disk + noise).clip(0, 255).astype(np.uint8)).save(path)
    return Image.fromarray(disk.astype(np.uint8))


def infer(bundle, image, folder):
    """What the bundle's own inference writes for an image: the one file in ``folder``."""
    own = {"bundle_root": str(bundle), "datalist": [str(image)], "output_dir": str(folder)}
    monai.bundle.run(config_file=str(bundle / "configs/inference.json"), **own)
    (file,) = [path for path in Path(folder).iterdir() if path.is_file()]
    return file


def check_volume(answer, expected, source):
    """The same voxels as the bundle's own inference wrote, where the source has them."""
    answer, expected, source = (nib.load(file) for file in (answer, expected, source))
    assert answer.shape == source.shape
    np.testing.assert_allclose(answer.affine, source.affine, atol=1e-4)
    labels = np.asarray(answer.dataobj)
    assert len(np.unique(labels)) > 1  # else any place would do
    np.testing.assert_array_equal(labels, np.asarray(expected.dataobj))


def check_picture(answer, expected, source):
    """The same pixels as the bundle's own inference wrote, as many as the source has."""
    answer, expected, source = (np.asarray(Image.open(file)) for file in (answer, expected, source))
    assert answer.shape == source.shape
    assert len(np.unique(answer)) > 1
    np.testing.assert_array_equal(answer, expected)


def check_probabilities(answer, table, names):
    """The same probabilities as the bundle's own inference wrote, by name."""
    header, row = (line.split(",") for line in table.read_text().split())
    assert header == ["file", *names]
    told = {entry["label"]: entry["score"] for entry in answer["prediction"]}
    assert list(told) == names
    np.testing.assert_allclose([told[name] for name in names], [float(p) for p in row[1:]], atol=1e-4)
