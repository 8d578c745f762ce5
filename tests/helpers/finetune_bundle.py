"""Finetune bundle, shared by several test files."""

import json
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
from PIL import Image
from pretrain_bundle import UNET

ROOT = Path(__file__).parents[2]
TASKS = ("segmentation", "classification")
KINDS = [(task, dims) for task in TASKS for dims in (2, 3)]

SMALL = {
    "batch_size": 2,
    "epoch_length": 2,
    "max_epochs": 2,
    "warmup_epochs": 0,
    "test_fraction": 0.25,
    "validation_fraction": 0.34,
}

VALUES = {
    ("segmentation", 2): {"patch_size": [32, 32], "image_size": [32, 32], "class_names": ["background", "blob"]},
    ("segmentation", 3): {"patch_size": [32, 32, 16], "class_names": ["background", "blob", "core"]},
    ("classification", 2): {"image_size": [32, 32], "class_names": ["dark", "bright"]},
    ("classification", 3): {"image_size": [32, 32, 32], "class_names": ["dark", "bright"]},
}
FEATURES = [4, 4, 8, 8, 8, 4]
NETWORKS = {  # whose files have kilobytes
    ("segmentation", 2): {"network_def": UNET | {"out_channels": "$len(@class_names)"}},
    ("segmentation", 3): {"network_def#features": FEATURES},
    ("classification", 2): {"network_def#_target_": "resnet10", "network_def#widen_factor": 0.125},
    ("classification", 3): {"features": FEATURES},
}
SHIPPED = NETWORKS | {  # of the shipped kinds
    ("segmentation", 2): {"network_def#backbone": "resnet10"},
    ("classification", 2): {"network_def#_target_": "resnet10"},
}
OWN = {kind: VALUES[kind] | NETWORKS[kind] for kind in KINDS}

FOR_INFERENCE = ("network_def", "features", "patch_size", "image_size", "class_names", "ckpt_dir")  # of these options


def bundle(task, dims):
    return ROOT / f"bundles/dira_finetune_{task}_{dims}d"


def config(kind, name):
    return json.loads((bundle(*kind) / "configs" / f"{name}.json").read_text())


def configs(kind, names):
    """The files of these configs, as MONAI takes them."""
    return [str(bundle(*kind) / f"configs/{name}.json") for name in names]


def values_in(content):
    """Every value in a config, the config first."""
    yield content
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    for value in inner:
        yield from values_in(value)


def write_image(folder, name, array):
    """8-bit PNG of an array whose first axis goes to the right, or NIfTI with voxels of 2 x 1 x 1.5 mm."""
    folder.mkdir(parents=True, exist_ok=True)
    if array.ndim == 2:
        Image.fromarray(array.T.astype(np.uint8)).save(folder / f"{name}.png")
    else:
        nib.save(nib.Nifti1Image(array.astype(np.int16), np.diag([-2.0, 1.0, 1.5, 1.0])), folder / f"{name}.nii.gz")


def write_data(folder, dims, count=16):
    """Images of a bright blob with its label map, and a table that says which images are bright."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (36, 40, 20)[:dims]], indexing="ij"))
    rows = ["file,label"]
    for case in range(count):
        center = np.array([18, 20, 10][:dims]).reshape(-1, *[1] * dims) + rng.integers(-3, 4)
        distance = np.sqrt(((grid - center) ** 2).sum(0))
        image = 60 + 90 * (distance < 9) + 40 * (case % 2) + rng.normal(0, 8, distance.shape)
        label = (distance < 9).astype(int) + (distance < 5)
        if dims == 2:
            write_image(folder / "images", f"case{case}", image.clip(0, 255))
            write_image(folder / "labels", f"case{case}", 255 * (label > 0))
        else:
            write_image(folder / "images", f"case{case}", 10 * image - 1000)
            write_image(folder / "labels", f"case{case}", label)
        rows.append(f"case{case}{'.png' if dims == 2 else '.nii.gz'},{('dark', 'bright')[case % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def overrides(kind, scans, folder, networks=NETWORKS, **more):
    paths = {
        "dataset_dir": str(scans[kind[1]]),
        "output_dir": str(folder / "out"),
        "ckpt_dir": str(folder / "models"),
    }
    return SMALL | VALUES[kind] | networks[kind] | paths | more


def train(kind, options, files=("train",)):
    monai.bundle.run(config_file=[str(bundle(*kind) / "configs" / f"{f}.json") for f in files], **options)


def later(options):
    """The part of a training's options that evaluation and inference need as well."""
    return {key: value for key, value in options.items() if key.split("#")[0] in FOR_INFERENCE}
