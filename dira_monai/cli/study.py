"""The command ``study``: the function of the same name."""

from collections.abc import Iterator
from typing import Any

from .deferred import outline, takes_options_of


@takes_options_of(outline("workflows.study.run", "study"))
def study(source: str, *, labeled: str | None = None, unlabeled: str | None = None, **entries: Any) -> Iterator[str]:
    """Find out which pre-training pays on your data: trainings over tasks, labels, subsets and seeds, and a report.

    Args:
        source: JSON file of a study, or the name of one that comes with the package, such as few_labels.
        labeled: data of the tasks that name none in the file: folder, or labeled datalist.
        unlabeled: data of the pre-trainings, folder or datalist; by default the training images of the task.
        entries: of the file to replace, objects to be put over, such as --dims 2 --seeds 3 --finetune
            "{'class_names': ['background', 'lung']}".
    """
    from ..workflows.study.run import study as start  # here, since --help needs none of it

    given: dict[str, Any] = {"labeled": labeled, "unlabeled": unlabeled}
    start(source, **{name: path for name, path in given.items() if path is not None}, **entries)
    yield from ()
