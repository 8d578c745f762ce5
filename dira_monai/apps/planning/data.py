"""The data of a plan: its list of images, the configuration that suits it, and what its labels mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ...bundle.config import BundleConfig, read_config
from ...bundle.shipped import bundle_folders
from ...datalists.checks import LISTS
from ...datalists.io import load_datalist, read_datalist
from ...datalists.label_maps import in_image_folders
from ...datalists.layouts import join_modalities, split_names
from ...datalists.options import LabelOptions
from ...datalists.prepare import list_images
from ...datalists.prepare_labeled import FIXED, list_labeled
from ...datalists.rows import Found
from ...images.find import Image, find_images, first_file
from ...images.reader import NIFTI_SUFFIXES, PIL_SUFFIXES
from ...images.stock import name_reader
from ...losses.classification import check_classes
from ...utils.errors import InputError
from .facts import NONE, Choice, look_at, most_frequent
from .labels import find_classes

PRETRAIN = "pretrain"


@dataclass
class Data:
    """What a plan starts from."""

    datalist: dict  # checked, with ``dataset_dir``
    config: BundleConfig  # of the bundle; the choices are in it already
    bundle: str  # its folder, or its files joined by commas
    choices: dict[str, Choice]  # in_channels, and what the labels mean

    def take(self, name: str, choice: Choice, given: Mapping[str, Any]) -> None:
        """Take a choice where the configuration has such a value and the user gave none."""
        if name not in given and name in self.config.parser:
            self.choices[name] = choice
            self.config.parser[name] = choice.value


def read_data(path: Path, task: str, bundle: str | None, given: Mapping[str, Any], output: Path) -> Data:
    """The images of a folder or a datalist, and the bundle's configuration for them.

    Args:
        path: folder or JSON file.
        task: pretrain, segmentation or classification.
        bundle: folder or files; None: that of the task which comes with the package.
        given: values of the configuration that the user gives.
        output: folder that keeps the list of images, as a training keeps it.

    Raises:
        InputError: if the data, the bundle or a value cannot be used.
    """
    listed = path if path.suffix == ".json" else path / "datalist.json"
    content = read_datalist(listed) if listed == path or listed.is_file() else {}
    if content:
        entries = [entry for key in LISTS[:2] for entry in load_datalist(listed)[key]]
        images: Sequence[Image] = [entry["image"] for entry in entries]
    else:
        images = Found(path, []).without_label_maps(find_images(path))
        images = images if task == PRETRAIN else in_image_folders(images)
        names = split_names(given.get("modalities"))
        images = join_modalities(images, names)[0] if names else images
    known = {"spatial_dims", "in_channels"} <= content.keys()
    sample = [] if known else look_at(images, path)
    dims = content.get("spatial_dims") or most_frequent([len(facts["shape"]) for facts in sample], 3)
    alike = [facts["channels"] for facts in sample if len(facts["shape"]) == dims]
    channels = content.get("in_channels") or most_frequent(alike, 1)
    name = f"dira_{PRETRAIN if task == PRETRAIN else f'finetune_{task}'}_{dims}d"
    bundle = bundle or str(bundle_folders()[name])
    found = Data({}, read_config(bundle, given, purpose="a plan"), bundle, {})
    reason = f"{alike.count(channels)} of {len(alike)} images that were read" if alike else "as the list was made"
    found.take("in_channels", Choice(channels, reason), given)
    if task == PRETRAIN:
        own = ("in_channels", "seed", "validation_fraction", "patient", "patient_column", "file_column", "modalities")
        values = {name: found.config.build(name) for name in own if name in found.config.parser}
        values["modalities"] = split_names(values.get("modalities")) or None
        found.datalist, _ = list_images(path, output, {"spatial_dims": dims, **values})
    else:
        asked = _options(found, task, dims, images, given)
        _read_labeled(found, path, listed if content else None, asked, given, output)
    return found


def _options(found: Data, task: str, dims: int, images: Sequence[Image], given: Mapping[str, Any]) -> LabelOptions:
    """The options of the configuration, for the reader that the images need."""
    names = [first_file(image).lower() for image in images]
    pictures = sum(name.endswith(PIL_SUFFIXES) for name in names)
    if dims == 2 and 2 * pictures < len(names):
        nifti = 2 * sum(name.endswith(NIFTI_SUFFIXES) for name in names) > len(names)
        found.take("reader", Choice(NONE if nifti else "dira_monai.ScanReader", "no PNG or JPEG"), given)
        found.take("label_reader", Choice(NONE, "as the images"), given)
    reader = found.config.parser.get("reader")
    only = dims == 2 and (isinstance(reader, dict) or reader == "PILReader")
    known = {f.name for f in fields(LabelOptions)} - {"task", "spatial_dims", "pictures_only"}
    values = {name: found.config.build(name) for name in sorted(known) if name in found.config.parser}
    values |= {name: name_reader(values[name]) for name in ("reader", "label_reader") if name in values}
    return LabelOptions(task=task, spatial_dims=dims, pictures_only=only, **values)


def _read_labeled(
    found: Data, path: Path, listed: Path | None, options: LabelOptions, given: Mapping[str, Any], output: Path
) -> None:
    """Make or load the labeled list, and take what its labels mean."""
    if listed is not None:
        content = read_datalist(listed)
        if "class_names" not in {*content, *given}:
            raise InputError(f"{listed} has no class_names; give them, such as {{'class_names': ['a', 'b']}}.")
        known = {name: NONE if content[name] is None else content[name] for name in FIXED[3:] if name in content}
        choices = {name: Choice(value, "as the list was made") for name, value in known.items()}
    else:
        choices = {} if "class_names" in given else find_classes(path, options)
    for name, choice in choices.items():
        found.take(name, choice, given)
    chosen: dict[str, Any] = {name: choice.value for name, choice in choices.items() if name not in given}
    chosen = {name: None if value == NONE else value for name, value in chosen.items()}
    options = replace(options, **chosen)
    found.datalist, _ = list_labeled(path, output, options)
    if options.task == "classification":
        check_classes(found.datalist["validation"], "validation")  # as the training does
