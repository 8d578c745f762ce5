"""Images with a bright and a dark square whose places are known, and tables of them."""

import nibabel as nib
import numpy as np
from planted_maps import cube, fill
from scan_files import write_image

CLASSES = ["bright", "dark"]
SHAPE = (24, 16, 20)  # of a file: columns and rows, or voxels along P, I and R
BRIGHT, DARK = cube(2, 6, 3), cube(8, 14, 3)  # even ends: halving and doubling the image keeps them


def flat(box):
    return [*box[:2], *box[3:5]]


def box_of(name, spatial_dims):
    box = {"bright": BRIGHT, "dark": DARK}[name]
    return box if spatial_dims == 3 else flat(box)


def planted_image(spatial_dims):
    image = np.full(SHAPE[:spatial_dims], 100, dtype=np.int16)
    return fill(fill(image, box_of("bright", spatial_dims), 200), box_of("dark", spatial_dims), 0)


def write_scan(folder, name, spatial_dims):
    if spatial_dims == 2:
        return write_image(folder / f"{name}.png", planted_image(2).T)  # Pillow takes rows first
    turn = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("RAS", "PIR")))
    affine = nib.Nifti1Image(np.zeros((20, 24, 16)), np.eye(4)).as_reoriented(turn).affine
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(planted_image(3), affine), folder / f"{name}.nii.gz")
    return folder / f"{name}.nii.gz"


def write_table(path, *rows):
    path.write_text("\n".join(rows) + "\n")
    return path


def masks_file(folder):
    folder.mkdir()
    return folder / "a.nii"
