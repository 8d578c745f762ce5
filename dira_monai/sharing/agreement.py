"""Whether an inference configuration computes what the training did: tried out, on one image of its validation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor, nn

from ..bundle.config import BundleConfig
from ..images.find import Image, first_file, is_series
from ..images.stock import OUR_READER
from ..utils.errors import InputError, find_cause
from ..weights.files import load_module, on_cpu
from .config_parts import copy_parts

FILES_AND_GEOMETRY = ("Invertd", "SaveImaged", "SqueezeDimd", "DeleteItemsd", "CastToTyped")  # change no prediction


def parse(config: Mapping[str, Any], name: str = "inference.json") -> BundleConfig:
    """A copy of the configuration for the CPU, whose parts can be built.

    Args:
        config: the configuration.
        name: what errors call it.
    """
    return BundleConfig(ConfigParser(copy_parts(dict(config)) | {"device": "cpu"}), name, "the bundle of a run")


def check_network(config: Mapping[str, Any], network: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a ``network_def`` that is not the network of the training.

    Args:
        config: with ``network_def``.
        network: of the training; its state stays.
        shape: of an input, with channels.

    Raises:
        InputError: if the weights do not fit, or the same input gives another output.
    """
    weight, training = next(network.parameters()), network.training
    built = parse(config).build("network_def").to(weight.dtype).eval()
    load_module(built, on_cpu(network.state_dict()), "inference.json", "network_def")
    image = torch.linspace(0, 1, torch.Size(shape).numel(), dtype=weight.dtype).reshape(1, *shape)
    with torch.no_grad():
        own, trained = built(image), network.eval()(image.to(weight.device)).cpu()
    network.train(training)
    if own.shape != trained.shape or not torch.allclose(own, trained, rtol=1e-2, atol=1e-2 * float(trained.std() + 1)):
        raise InputError("network_def of inference.json computes something else than the network of the training")


def prepare_image(config: Mapping[str, Any], image: Any) -> Tensor:
    """What ``preprocessing`` of a configuration makes of a file.

    Raises:
        InputError: if it cannot be built or run.
    """
    transform = parse(config).build("preprocessing")
    try:
        return _plain(transform({"image": image})["image"])
    except Exception as error:  # whatever a transform raises
        raise InputError(f"preprocessing of inference.json does not run on {image} ({find_cause(error)})") from error


def needs_own_reader(config: Mapping[str, Any], images: Sequence[Image]) -> bool:
    """Whether stock MONAI reads images of a pre-training otherwise than ``ScanReader``, which lists and trains on them.

    The first image of each suffix is read by both. DICOM series always need it: stock MONAI reads those with a tilt or
    uneven gaps as upright and even, and new ones may have them though the first has none.

    Args:
        config: of the inference, which reads by stock MONAI.
        images: of the training.
    """
    own = {**config, "reader": OUR_READER}
    firsts = {Path(first_file(image)).suffix: image for image in reversed(images)}
    return any(is_series(image) or not _read_alike(config, own, image) for image in firsts.values())


def _read_alike(config: Mapping[str, Any], own: Mapping[str, Any], image: Image) -> bool:
    try:
        return agree(prepare_image(config, image), prepare_image(own, image))
    except InputError:  # one of them cannot read it
        return False


def agree(own: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two images or predictions are the same, but for rounding."""
    own, expected = _plain(own), _plain(expected)
    return own.shape == expected.shape and torch.allclose(own, expected, tolerance, tolerance)


def _plain(image: Any) -> Tensor:
    return torch.as_tensor(image).detach().cpu().float()


def check_postprocessing(config: Mapping[str, Any], trained: Mapping[str, Any], sample: Mapping[str, Any]) -> None:
    """Refuse a ``postprocessing`` that makes of logits something else than the validation does.

    Args:
        config: of the inference.
        trained: of the training.
        sample: image and label as the validation prepares them.

    Raises:
        InputError: if the results differ.
    """
    shape = (len(config["class_names"]), *sample["label"].shape[1:])
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    own = _postprocess(config, "inference.json", "postprocessing", {"image": sample["image"], "pred": logits.clone()})
    expected = _postprocess(trained, "the training", "validate::postprocessing", {**sample, "pred": logits.clone()})
    if len(own) == 1 < len(expected):  # class numbers, and one channel a class
        expected = expected.argmax(0, keepdim=True)
    if not agree(own, expected):
        raise InputError("postprocessing of inference.json makes something else of the output than the training does")


def _postprocess(config: Mapping[str, Any], name: str, place: str, sample: dict[str, Any]) -> Tensor:
    """The prediction behind those transforms that neither write files nor change the geometry."""
    parsed = parse(config, name)
    transforms = [
        t for t in parsed.parser[place]["transforms"] if t["_target_"].split(".")[-1] not in FILES_AND_GEOMETRY
    ]
    parsed.parser[place]["transforms"] = transforms
    transform: Compose = parsed.build(place)
    return torch.as_tensor(transform(sample)["pred"])
