"""The plan: a bundle's values for the data, the device and the time at hand, each with its reason."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...datalists.options import TASKS
from ...utils.errors import InputError
from ...utils.files import user_path, write_json
from ...utils.tables import format_table
from .data import PRETRAIN, read_data
from .facts import NONE, Choice, find_device
from .planner import Planner

WIDTH = 40  # characters of a value in the table
MUCH = 1.1  # times the given hours, of which is warned
FEW_STEPS = 1000  # below which a pre-training has hardly begun, and a network from scratch as well


@dataclass(frozen=True)
class Plan:
    """Values of a bundle's configuration.

    Attributes:
        task: pretrain, segmentation or classification.
        bundle: folder or files that the values are for.
        data: one line on the images and the device.
        choices: value and reason of each, by its name in the configuration.
        notes: what the user should think about.
    """

    task: str
    bundle: str
    data: str
    choices: dict[str, Choice]
    notes: list[str]

    @property
    def values(self) -> dict[str, Any]:
        """The values alone, by name; "$None" for none, as MONAI takes it from files and from the command line."""
        return {name: choice.value for name, choice in self.choices.items()}

    @property
    def reasons(self) -> dict[str, str]:
        """The reasons alone, by name."""
        return {name: choice.reason for name, choice in self.choices.items()}

    def table(self) -> str:
        """The data in a line, and a row a value with its reason."""
        rows = [(name, _shown(choice.value), choice.reason) for name, choice in self.choices.items()]
        lines = [self.data, format_table([("value", "plan", "why"), *rows]), *self.notes]
        return "\n".join(lines)

    def write(self, path: str | Path) -> None:
        """Write the values as a configuration that overrides the bundle's, with the reasons in ``_desc_``."""
        overlay = {"_desc_": {"data": self.data, **self.reasons}, **self.values}
        write_json(path, overlay, indent=4)


def _shown(value: Any) -> str:
    """A value in a cell of the table."""
    text = "none" if value == NONE else json.dumps(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4]} ..."


def plan(
    data: str | Path,
    *,
    task: str = PRETRAIN,
    hours: float = 12.0,
    device: str | None = None,
    bundle: str | None = None,
    given: Mapping[str, Any] | None = None,
    seconds_per_step: float | None = None,
    output: str | Path | None = None,
) -> Plan:
    """Values that suit the images, the device and the time; the same for the same files, but for the measured speed.

    Args:
        data: folder of scans, or a datalist.
        task: pretrain, segmentation or classification.
        hours: that the training may last.
        device: such as cpu or cuda:0; None: the GPU, if there is one.
        bundle: folder of the bundle, or its configuration files; None: that of the task which comes with the package.
        given: values of the configuration that stay as they are, by their ids, such as ``network_def#features``.
        seconds_per_step: of a step with the planned batch; None: measured by a few steps on random images.
        output: folder of the run that follows, which then need not make the list of images again.

    Raises:
        InputError: if the data, the device or a value cannot be used.
    """
    if task not in (PRETRAIN, *TASKS):
        raise InputError(f"task must be {PRETRAIN}, {' or '.join(TASKS)}, got {task!r}.")
    if isinstance(hours, bool) or not isinstance(hours, int | float) or not hours > 0:
        raise InputError(f"hours must be a number above 0, got {hours!r}.")
    where = find_device(device)
    with TemporaryDirectory() as temporary:
        found = read_data(user_path(data), task, bundle, given or {}, Path(output or temporary))
    planner = Planner(found, task, where, given or {})
    planner.plan_images()
    planner.plan_batch()
    planner.plan_epochs(hours, seconds_per_step)
    if task == PRETRAIN:
        planner.plan_contrast()
    facts = planner.facts
    line = f"{task} in {facts.spatial_dims}D, {facts.training} training and {facts.validation} validation images"
    notes = []
    if planner.hours > MUCH * hours:
        notes.append(
            f"note: the run takes about {planner.hours:.2g} h, more than the {hours:g} h: a single step, or validation "
            f"of {facts.validation} images, is too long; give more --hours, a smaller network or fewer images."
        )
    if planner.steps < FEW_STEPS:
        notes.append(f"note: {planner.steps} steps are few; give more --hours, a smaller network or more images.")
    return Plan(task, found.bundle, f"{line}, on {where.name}", found.choices, notes)
