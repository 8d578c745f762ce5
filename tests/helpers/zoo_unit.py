"""The unit test of a bundle that the Model Zoo asks for: copy it there as ci/unit_tests/test_NAME.py.

Its file name says which bundle it runs, from models/NAME below the working directory: training, evaluation and
inference on synthetic images and a small network, with no property missing. It writes nothing into the bundle.
"""

import json
import tempfile
import unittest
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow
from PIL import Image

NAME = Path(__file__).stem.removeprefix("test_")
CONFIGS = Path("models") / NAME / "configs"
TRAIN = json.loads((CONFIGS / "train.json").read_text())
DIMS = TRAIN["spatial_dims"]
PRETRAINS = "objective_def" in TRAIN
CLASSES = TRAIN.get("class_names", ["background", "blob"])
SHORT = {"batch_size": 2, "epoch_length": 2, "max_epochs": 1, "warmup_epochs": 0, "validation_fraction": 0.34}
FINE_TUNING = {"test_fraction": 0.25}
PRETRAINING = {"val_samples": 4, "queue_size": 8, "discriminator_channels": 4}


def small_network():
    """Options that make a network of the same kind that trains in seconds."""
    if "features" in TRAIN:
        return {"features": [4, 4, 8, 8, 8, 4]}
    kind = TRAIN["network_def"]["_target_"]
    options = {"BasicUNet": ("features", [4, 4, 8, 8, 8, 4]), "FlexibleUNet": ("backbone", "resnet10")}
    key, value = options.get(kind, ("_target_", "resnet10"))
    return {f"network_def#{key}": value}


def small_images():
    """Options that fit a small network; what is null or computed in the bundle stays so."""
    sizes = {"patch_size": [64, 64] if DIMS == 2 else [32, 32, 16], "image_size": [64, 64] if DIMS == 2 else [32] * 3}
    return {key: size for key, size in sizes.items() if isinstance(TRAIN.get(key), list)}


def write(folder, case, values):
    """PNG of 8 bits, or NIfTI with voxels of 2 x 1 x 1.5 mm."""
    folder.mkdir(exist_ok=True)
    if DIMS == 2:
        Image.fromarray(values.astype(np.uint8)).save(folder / f"case{case}.png")
    else:
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([2, 1, 1.5, 1])), folder / f"case{case}.nii.gz")


def write_data(folder, count=16):
    """Blobs of several classes in noise with their label maps, and a table in which every second image is class 1."""
    rng = np.random.default_rng(0)
    shape = {2: (72, 80), 3: (36, 40, 24)}[DIMS]
    low, high = TRAIN["intensity_range"] or (0, 255)
    top = 1 if TRAIN.get("label_threshold") is None else 255
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    rows = ["file,label"]
    for case in range(count):
        distance = np.sqrt(((grid - rng.uniform(-0.2, 0.2)) ** 2).sum(0))
        label = sum((distance < radius).astype(int) for radius in np.linspace(0.8, 0.4, len(CLASSES) - 1))
        image = (0.2 + 0.6 * label / label.max() + rng.normal(0, 0.05, shape)).clip(0, 1)
        write(folder / "images", case, low + (high - low) * image)
        write(folder / "labels", case, top * label)
        rows.append(f"case{case}.{'png' if DIMS == 2 else 'nii.gz'},{CLASSES[case % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def workflow(kind, files, **options):
    """A workflow of the bundle's config files with everything beside them."""
    return ConfigWorkflow(
        workflow_type=kind,
        config_file=[str(CONFIGS / f"{file}.json") for file in files],
        logging_file=str(CONFIGS / "logging.conf"),
        meta_file=str(CONFIGS / "metadata.json"),
        bundle_root=str(CONFIGS.parent),
        **options,
    )


class TestBundle(unittest.TestCase):
    def check(self, workflow):
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.run()
        workflow.finalize()

    def test_train_evaluate_and_infer(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_data(folder)
            paths = {"output_dir": f"{name}/output", "ckpt_dir": f"{name}/models"}
            images = f"{name}/images"
            small = small_network() | small_images()
            data = {"dataset_dir": images if PRETRAINS else name}
            options = small | SHORT | (PRETRAINING if PRETRAINS else FINE_TUNING) | data | paths
            self.check(workflow("train", ["train"], **options))
            assert (folder / "models/model.pt").is_file()

            self.check(workflow("train", ["train", "evaluate"], **options))
            assert list((folder / "output/evaluation").iterdir())

            own = {**paths, "output_dir": f"{name}/results", "dataset_dir": images}
            self.check(workflow("infer", ["inference"], **small, **own))
            assert list((folder / "results").iterdir())


if __name__ == "__main__":
    unittest.main()
