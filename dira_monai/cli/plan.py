"""The command ``python -m dira_monai plan``."""

from collections.abc import Iterator

from ..bundle.values import type_word


def plan(
    data: str,
    *,
    task: str = "pretrain",
    hours: float = 12.0,
    device: str | None = None,
    output: str = "plan.json",
    bundle: str | None = None,
    overrides: dict | None = None,
    seconds_per_step: float | None = None,
) -> Iterator[str]:
    """Choose values of a bundle that suit the images, the device and the time, and write them as a second config file.

    Args:
        data: folder of scans, or a datalist.
        task: pretrain, segmentation or classification.
        hours: that the training may last.
        device: such as cpu or cuda:0; by default the GPU, if there is one.
        output: JSON file to write.
        bundle: folder of the bundle, or its configuration files; by default that of the task in the package.
        overrides: values that stay as they are, such as "{'network_def#backbone': 'resnet10'}".
        seconds_per_step: of a step with the planned batch; by default a few steps are measured.
    """
    from ..apps.planning.plan import plan as make_plan  # here, since --help needs none of it

    made = make_plan(
        data,
        task=task,
        hours=hours,
        device=device,
        bundle=bundle,
        given=overrides,
        seconds_per_step=seconds_per_step,
    )
    made.write(output)
    yield from made.table().splitlines()
    files = made.bundle.split(",") if made.bundle.endswith(".json") else [f"{made.bundle}/configs/train.json"]
    yield f"{output} is written: --config_file {type_word([*files, output])} --dataset_dir {type_word(data)}"
