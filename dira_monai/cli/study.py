"""The command ``study``: the function of the same name."""

from collections.abc import Iterator, Mapping
from typing import Any

from .deferred import parse_values


def study(
    source: str,
    *,
    labeled: str | None = None,
    unlabeled: str | None = None,
    output: str | None = None,
    workers: int = 1,
    cluster: str | None = None,
    job: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    **entries: Any,
) -> Iterator[str]:
    """Find out which pre-training pays on your data: trainings over tasks, labels, subsets and seeds, and a report.

    Args:
        source: JSON file of a study, or the name of one that comes with the package, such as few_labels.
        labeled: data of the tasks that name none in the file: folder, or labeled datalist.
        unlabeled: data of the pre-trainings, folder or datalist; by default the training images of the task.
        output: folder of the study, in which it goes on where it was stopped; by default that of its name below
            $DIRA_RUNS, else ~/dira-monai.
        workers: cells that run at a time; more than one needs submitit.
        cluster: slurm, where the workers are jobs of Slurm; by default they are processes of this machine.
        job: what submitit is told of the jobs, such as "{'slurm_partition': 'gpu', 'gpus_per_node': 1}".
        dry_run: list the cells and check the values of each, without data.
        entries: of the file to replace, objects to be put over, such as --dims 2 --seeds 3 --finetune
            "{'class_names': ['background', 'lung']}".
    """
    from ..workflows.study.run import study as start  # here, since --help needs none of it

    given = {name: path for name, path in (("labeled", labeled), ("unlabeled", unlabeled)) if path is not None}
    options = given | parse_values(entries)
    start(source, output=output, workers=workers, cluster=cluster, job=job, dry_run=dry_run, **options)
    yield from ()
