"""Pretrain bundle, shared by several test files."""

from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image
from running import command_of

ROOT = Path(__file__).parents[2]
BUNDLES = {2: ROOT / "bundles/dira_pretrain_2d", 3: ROOT / "bundles/dira_pretrain_3d"}

SMALL = {  # overrides that make a run last seconds
    "batch_size": 2,
    "epoch_length": 3,
    "max_epochs": 2,
    "val_samples": 4,
    "queue_size": 8,
    "discriminator_channels": 4,
}

UNET = {
    "_target_": "BasicUNet",
    "spatial_dims": "@spatial_dims",
    "in_channels": "@in_channels",
    "out_channels": "@in_channels",
    "features": [4, 4, 8, 8, 8, 4],
}
OWN = {  # files of these networks have kilobytes
    2: {"patch_size": [32, 32], "network_def": UNET},
    3: {"patch_size": [32, 32, 16], "network_def#features": UNET["features"]},
}
SHIPPED = OWN | {2: {"patch_size": [64, 64], "network_def#backbone": "resnet10"}}  # networks of the shipped kind


def write_scans(folder, spatial_dims, count=5, size=48):
    """Smooth random images, one a patient: PNG of 8 bits, or NIfTI in HU with voxels of 2 mm."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = torch.tensor(rng.uniform(0, 1, (1, 1, *[6] * spatial_dims)))
        mode = "bilinear" if spatial_dims == 2 else "trilinear"
        image = torch.nn.functional.interpolate(coarse, size=[size] * spatial_dims, mode=mode)[0, 0].numpy()
        if spatial_dims == 2:
            Image.fromarray((image * 255).astype(np.uint8)).save(folder / f"case{number}.png")
        else:
            volume = (image * 2000 - 1000).astype(np.int16)
            nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2.0, 2.0, 1.0])), folder / f"case{number}.nii.gz")
    return folder


def overrides(spatial_dims, scans, folder, own=OWN, **more):
    paths = {
        "dataset_dir": str(scans[spatial_dims]),
        "output_dir": str(folder / "out"),
        "ckpt_dir": str(folder / "models"),
    }
    return SMALL | own[spatial_dims] | paths | more


def run(spatial_dims, files, options):
    """The bundle's config files run in this process."""
    monai.bundle.run(config_file=[str(BUNDLES[spatial_dims] / "configs" / f"{f}.json") for f in files], **options)


def parsed(spatial_dims, files, **options):
    """The bundle's config files as a run merges them, the later one over the earlier, and options over all."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLES[spatial_dims] / "configs" / f"{f}.json") for f in files])
    parser.update(options)
    return parser


def command(spatial_dims, files, options):
    """The command line that a user types behind ``python``."""
    return command_of(BUNDLES[spatial_dims], files, options)
