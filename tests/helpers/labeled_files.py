"""Small labeled data, and the lists that are made of them."""

import hashlib

import numpy as np
from scan_files import noise, write_image, write_nifti

from dira_monai.datalists.labeled import make_labeled_datalist
from dira_monai.datalists.options import LabelOptions

LUNG = ["background", "lung"]
SHAPES = {2: (6, 8), 3: (6, 8, 5)}
LISTS = ("training", "validation", "test")


def drawn(patients, fraction, seed, purpose):
    """The patients of which the first 12 hexadecimal digits of a SHA-256 lie below the fraction of all of them."""

    def digits(name):
        return int(hashlib.sha256(f"{seed} {purpose} {name}".encode()).hexdigest()[:12], 16)

    return {name for name in patients if digits(name) < fraction * 16**12}


def write_maps(root, spatial_dims, count=10, folders=("images", "labels"), ending=""):
    """NIfTI images case_0 ... with label maps that hold the classes 0 and 1."""
    for index in range(count):
        image = noise(*SHAPES[spatial_dims], seed=index)
        write_nifti(root / folders[0] / f"case_{index}.nii.gz", image)
        write_nifti(root / folders[1] / f"case_{index}{ending}.nii.gz", (image > 100).astype(np.uint8))
    return root


def write_table(root, text, images=(), folder="images"):
    for index, name in enumerate(images):
        write_image(root / folder / name, noise(6, 8, seed=index))
    (root / "labels.csv").parent.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text(text)
    return root


def ten(words, head="file,label", more=lambda index: ""):
    """A table and names of ten images with these words in turn."""
    names = [f"x{index}.png" for index in range(10)]
    rows = [f"{name},{words[index % len(words)]}{more(index)}" for index, name in enumerate(names)]
    return "\n".join([head, *rows]) + "\n", names


def segment(root, class_names=LUNG, **options):
    return _make(root, "segmentation", class_names, **{"pictures_only": False} | options)


def classify(root, class_names=("healthy", "ill"), **options):
    return _make(root, "classification", class_names, **options)


def _make(root, task, class_names, strict=False, **options):
    return make_labeled_datalist(root, LabelOptions(task=task, class_names=class_names, **options), strict=strict)


def entries(made):
    return sorted((entry for key in LISTS for entry in made[key]), key=lambda entry: entry["image"])


def images_of(listed):
    return [entry["image"] for entry in listed]


def labels(made):
    return [entry["label"] for entry in entries(made)]


def reasons(made):
    return {entry["image"]: entry["reason"] for entry in made["skipped"]}
