"""The order of the rules: what each is given, and which of its answers hold."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...bundle.values import PREPARED_VALUES
from ...utils.errors import InputError
from . import images, schedule
from .data import PRETRAIN, Data
from .facts import NONE, Choice, DeviceFacts, gather_facts, network_facts
from .speed import measure_step

COPIES = 1.7  # of all maps of the network that a step keeps; 1.4 to 1.5 were measured in 2D and 3D pre-training
PUBLISHED = (  # values of the bundle that rules start from
    *("image_size", "patch_size", "region_size", "batch_size", "max_epochs", "epoch_length", "warmup_epochs"),
    *("momentum", "cache_dtype", "val_samples", "overlap"),
)


class Planner:
    """Applies the rules in their order; what the user gives stays, and the other values follow it."""

    def __init__(self, found: Data, task: str, device: DeviceFacts, given: Mapping[str, Any]) -> None:
        self.found = found  # the data, and the choices made so far
        self.task, self.device, self.given = task, device, given
        self.facts = gather_facts(found.datalist, self.value("axcodes"))
        if self.facts.spatial_dims != self.value("spatial_dims"):
            dims = self.value("spatial_dims")
            raise InputError(f"the images have {self.facts.spatial_dims} axes, but {found.bundle} is for {dims}.")
        self.published = {name: self.value(name) for name in PUBLISHED if name in found.config.parser}
        size = self.published.get("patch_size") or self.published["image_size"]
        if not isinstance(size, list | tuple):
            raise InputError(f"--image_size must have a number for each axis where whole images are seen, got {size}.")
        network = found.config.build("network_def")
        self.network = network_facts(network, self.value("in_channels"), size, COPIES)
        self.steps = 0  # of the optimizer in the planned run
        self.hours = 0.0  # that the planned steps and validations take

    def value(self, name: str) -> Any:
        """A value of the configuration, with the choices made so far in it."""
        return self.found.config.build(name)

    def choose(self, name: str, choice: Choice) -> Any:
        """Take a choice, unless the user gave a value or the images are prepared with one; the value that holds."""
        if name in PREPARED_VALUES and name in self.facts.prepared:
            value = self.facts.prepared[name]
            choice = Choice(NONE if value is None else value, "as the images were prepared")
        self.found.take(name, choice, self.given)
        return self.value(name)

    def plan_images(self) -> None:
        """Intensities, spacing, and the sizes of what is loaded and cropped."""
        self.choose("intensity_range", images.choose_intensity_range(self.facts))
        if self.task == "classification":
            size = images.choose_whole_size(self.facts.shapes, self.published["image_size"], self.network)
            self.choose("image_size", size)
        elif self.facts.spatial_dims == 2:
            self._plan_pictures()
        else:
            self._plan_volumes()
        if self.task == PRETRAIN:
            dtype = images.choose_cache_dtype(self.published["cache_dtype"], self.value("intensity_range"))
            self.choose("cache_dtype", dtype)

    def _plan_volumes(self) -> None:
        self.choose("spacing", images.choose_spacing(self.facts))
        shapes, published = self.shapes, self.published
        batch = published["batch_size"]
        patch = images.choose_patch(shapes, published["patch_size"], batch, self.network, self.device)
        patch_size = self.choose("patch_size", patch)
        if self.task == PRETRAIN:
            self.choose("region_size", images.choose_region(shapes, patch_size, self._region_in_patches()))

    def _plan_pictures(self) -> None:
        if self.task == "segmentation":
            size = images.choose_whole_size(self.facts.shapes, self.published["patch_size"], self.network)
            patch_size = self.choose("patch_size", size)
            self.choose("image_size", Choice(list(patch_size), "the patch is the whole image"))
            return
        square = images.choose_square(self.facts, self.published["patch_size"], self.network)
        patch_size = self.choose("patch_size", square)
        region = images.choose_square_region(self.facts, patch_size, self._region_in_patches())
        self.choose("image_size", images.choose_longest_side(self.facts, self.choose("region_size", region)))

    def _region_in_patches(self) -> list[float]:
        pairs = zip(self.published["region_size"], self.published["patch_size"], strict=True)
        return [region / patch for region, patch in pairs]

    @property
    def shapes(self) -> np.ndarray:
        """Of the images as they are loaded."""
        return self.facts.shapes_at(self.value("spacing"))

    @property
    def size(self) -> list[int]:
        """What the network sees."""
        return list(self.value("image_size" if self.task == "classification" else "patch_size"))

    @property
    def regions(self) -> int:
        """Training images, or regions of volumes that do not overlap."""
        region = self.value("region_size") if self.task == PRETRAIN else None
        return schedule.count_regions(self.facts, self.shapes, region)

    def plan_batch(self) -> None:
        """Batch and accumulation."""
        published = self.published.get("patch_size") or self.published["image_size"]
        voxels = (math.prod(published), math.prod(self.size))
        batch, accumulation = schedule.choose_batch(
            self.published["batch_size"], voxels, self.regions, self.network, self.device
        )
        self.choose("batch_size", batch)
        self.choose("accumulation_steps", accumulation)

    def plan_epochs(self, hours: float, seconds: float | None) -> None:
        """Length and number of epochs, and the warm-up."""
        seconds = self.measure() if seconds is None else seconds
        published, batch = self.published, self.value("batch_size")
        if self.task == PRETRAIN:
            crops = (published["val_samples"], self.facts.validation)
            self.choose("val_samples", schedule.choose_val_samples(*crops, 3600 * hours / seconds, batch))
        once = published["epoch_length"] or math.ceil(self.facts.training / batch)
        steps = published["max_epochs"] * max(once, schedule.SHORTEST)
        validation = self._validation_steps()
        length, epochs = schedule.choose_epochs(steps, once, validation, hours, seconds)
        natural = published["epoch_length"] is None and length.value == once
        self.choose("epoch_length", Choice(NONE, length.reason) if natural else length)
        max_epochs = self.choose("max_epochs", epochs)
        warmup = schedule.choose_warmup(published["warmup_epochs"], max_epochs, self.task == PRETRAIN)
        self.choose("warmup_epochs", warmup)
        steps = max_epochs * (self.value("epoch_length") or once)
        self.steps = steps // self.value("accumulation_steps")
        self.hours = (steps + max_epochs * validation) * seconds / 3600

    def _validation_steps(self) -> float:
        """What a validation costs, in steps of training."""
        count = float(self.facts.validation)
        if self.task == PRETRAIN:
            count = float(self.value("val_samples") or count)
        if self.task == "segmentation":
            count *= schedule.count_windows(self.shapes_seen, self.size, self.published["overlap"])
        return schedule.FORWARD * count / self.value("batch_size")

    @property
    def shapes_seen(self) -> np.ndarray:
        """Of the images as the sliding window meets them."""
        size = self.value("image_size")
        if isinstance(size, int):  # of the longest side
            return np.round(self.shapes * (size / self.shapes.max(axis=1, keepdims=True)))
        return self.shapes if size is None else np.array([size])

    def measure(self) -> float:
        """Seconds of a step; where the device's memory does not hold it, of half the batch, and so on.

        Raises:
            InputError: if the memory does not hold the user's batch, or the smallest.
        """
        size = self.value("region_size") if self.task == PRETRAIN else self.size
        classes = 1 if self.task == PRETRAIN else len(self.value("class_names"))
        while True:
            batch, accumulation = self.value("batch_size"), self.value("accumulation_steps")
            sizes = {"batch": batch, "channels": self.value("in_channels"), "size": size, "classes": classes}
            values = dict(self.given) | {name: choice.value for name, choice in self.found.choices.items()}
            try:
                return measure_step(self.found.bundle, values, self.device.name, self.task, sizes)
            except torch.OutOfMemoryError as error:
                if "batch_size" in self.given or batch <= 2:
                    raise InputError(
                        f"{self.device.name} does not hold a batch of {batch} images of {list(size)}; "
                        "give a smaller patch_size or network."
                    ) from error
            self.choose("batch_size", Choice(batch // 2, f"{batch} were tried and did not fit into the memory"))
            reason = f"{batch // 2} images a batch make the {batch * accumulation} of a step"
            self.choose("accumulation_steps", Choice(2 * accumulation, reason))

    def plan_contrast(self) -> None:
        """Momentum, queue and projector of MoCo, which other methods do not read."""
        momentum = self.choose("momentum", schedule.choose_momentum(self.published["momentum"], self.steps))
        batch = self.value("batch_size") * self.value("accumulation_steps")
        published = self.value("queue_size")
        self.choose("queue_size", schedule.choose_queue(published, self.regions, batch, momentum))
        if not self.value("pooled_norm"):
            self.choose("pooled_norm", schedule.choose_pooled_norm(self.steps))
