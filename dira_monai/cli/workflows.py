"""The commands ``pretrain``, ``finetune``, ``evaluate``, ``embed`` and ``bundles``: the functions of the same names."""

from collections.abc import Callable, Iterator
from typing import Any

from ..bundle.header_docs import TABLES, describe_options
from .deferred import outline, takes_options_of


def _with_options(page: str) -> Callable[[Callable], Callable]:
    """A decorator for a command, whose description then has the values of the bundles of a page of the docs."""

    def decorate(command: Callable) -> Callable:
        head, arguments = str(command.__doc__).split("\n\n", 1)
        command.__doc__ = f"{head}\n\n{describe_options(*TABLES[page])}\n\n{arguments}"
        return command

    return decorate


@_with_options("pretraining.md")
@takes_options_of(outline("workflows.train", "pretrain"))
def pretrain(data: str, *, method: str | None = None, **values: Any) -> Iterator[str]:
    """Pre-train on a folder of scans, or a list of them; every value at the top of train.json is an option.

    Args:
        data: folder of scans, datalist, or folder of the command prepare.
        method: overlay of the bundle such as simsiam, or several as in gravis,skin; by default DiRA.
        values: of train.json to replace, such as --batch_size 4 --network_def#features "[16, 32, 64, 128, 256, 16]".
    """
    from ..workflows.train import pretrain as start  # here, since --help needs none of it

    start(data, method=method, **values)
    yield from ()


@_with_options("finetuning.md")
@takes_options_of(outline("workflows.train", "finetune"))
def finetune(data: str, **values: Any) -> Iterator[str]:
    """Fine-tune on labeled scans; every value at the top of train.json is an option.

    Args:
        data: folder of images and labels, or labeled datalist.
        values: of train.json to replace, such as --class_names "[background, liver]" --label_fraction 0.1.
    """
    from ..workflows.train import finetune as start  # here, since --help needs none of it

    start(data, **values)
    yield from ()


def evaluate(run: str, **values: Any) -> Iterator[str]:
    """Measure the best weights of a run: of a fine-tuning on the test images, of a pre-training on those of validation.

    Args:
        run: folder of a run.
        values: of evaluate.json to replace, such as --surface_tolerance 1.0.
    """
    from ..workflows.evaluate import evaluate as start  # here, since --help needs none of it

    yield f"{start(run, **values)} holds the results"


@takes_options_of(outline("workflows.embed", "embed"))
def embed(run: str, data: str, **options: Any) -> Iterator[str]:
    """Write the features of images by the encoder of a run: the global average of its deepest map.

    Args:
        run: folder of a run.
        data: folder of images, or datalist, of which all lists are taken.
        **options: see ``embed``.
    """
    from ..workflows.embed import embed as start  # here, since --help needs none of it

    yield f"{start(run, data, **options)} holds the features"


def bundles(folder: str) -> Iterator[str]:
    """Copy the bundles, which this package carries, to a folder, to change them or to run them with MONAI's commands.

    Args:
        folder: to write to; bundles that are there already are not overwritten.
    """
    from ..bundle.shipped import bundles as copy_bundles  # here, since the other commands need none of it

    yield from (f"{copy}" for copy in copy_bundles(folder))
