"""The commands ``pretrain``, ``finetune``, ``evaluate``, ``embed`` and ``bundles``: the functions of the same names."""

from collections.abc import Callable, Iterator
from typing import Any

from ..bundle.header_docs import TABLES, describe_options
from .deferred import parse_values


def _with_options(page: str) -> Callable[[Callable], Callable]:
    """A decorator for a command, whose description then has the values of the bundles of a page of the docs."""

    def decorate(command: Callable) -> Callable:
        head, arguments = str(command.__doc__).split("\n\n", 1)
        command.__doc__ = f"{head}\n\n{describe_options(*TABLES[page])}\n\n{arguments}"
        return command

    return decorate


@_with_options("pretraining.md")
def pretrain(
    data: str,
    *,
    method: str | None = None,
    run: str | None = None,
    dims: int | None = None,
    hours: float | None = 12.0,
    **values: Any,
) -> Iterator[str]:
    """Pre-train on a folder of scans, or a list of them; every value at the top of train.json is an option.

    Args:
        data: folder of scans, datalist, or folder of the command prepare.
        method: overlay of the bundle such as simsiam, or several as in gravis,skin; by default DiRA.
        run: folder of the run; by default a new one below $DIRA_RUNS, else ~/dira-monai.
        dims: 2 or 3; by default what the data are.
        hours: that the training may last; the values that are not given are planned, as by the command plan. None: they
            are those of the bundle.
        values: of train.json to replace, such as --batch_size 4 --network_def#features "[16, 32, 64, 128, 256, 16]".
    """
    from ..workflows.train import pretrain as start  # here, since --help needs none of it

    start(data, method=method, run=run, dims=dims, hours=hours, **parse_values(values))
    yield from ()


@_with_options("finetuning.md")
def finetune(
    data: str,
    *,
    task: str,
    pretrained: str | None = None,
    run: str | None = None,
    dims: int | None = None,
    hours: float | None = 12.0,
    **values: Any,
) -> Iterator[str]:
    """Fine-tune on labeled scans; every value at the top of train.json is an option.

    Args:
        data: folder of images and labels, or labeled datalist.
        task: segmentation or classification.
        pretrained: folder of a pre-training run, or a file of weights.
        run: folder of the run; by default a new one below $DIRA_RUNS, else ~/dira-monai.
        dims: 2 or 3; by default what the data are.
        hours: that the training may last; the values that are not given are planned, as by the command plan. None: they
            are those of the bundle.
        values: of train.json to replace, such as --class_names "[background, liver]" --label_fraction 0.1.
    """
    from ..workflows.train import finetune as start  # here, since --help needs none of it

    start(data, task=task, pretrained=pretrained, run=run, dims=dims, hours=hours, **parse_values(values))
    yield from ()


def evaluate(run: str, **values: Any) -> Iterator[str]:
    """Measure the best weights of a run: of a fine-tuning on the test images, of a pre-training on those of validation.

    Args:
        run: folder of a run.
        values: of evaluate.json to replace, such as --surface_tolerance 1.0.
    """
    from ..workflows.evaluate import evaluate as start  # here, since --help needs none of it

    yield f"{start(run, **parse_values(values))} holds the results"


def embed(
    run: str, data: str, *, output: str | None = None, device: str | None = None, num_workers: int = 0
) -> Iterator[str]:
    """Write the features of images by the encoder of a run: the global average of its deepest map.

    Args:
        run: folder of a run.
        data: folder of images, or datalist, of which all lists are taken.
        output: table to write: .csv, or .npy with the names of the files in a .csv beside it; by default
            embeddings/DATA.csv in the folder of the run.
        device: such as cpu or cuda:0; by default the GPU, if there is one.
        num_workers: processes that read images.
    """
    from ..workflows.embed import embed as start  # here, since --help needs none of it

    yield f"{start(run, data, output=output, device=device, num_workers=num_workers)} holds the features"


def bundles(folder: str) -> Iterator[str]:
    """Copy the bundles, which this package carries, to a folder, to change them or to run them with MONAI's commands.

    Args:
        folder: to write to; bundles that are there already are not overwritten.
    """
    from ..bundle.shipped import bundles as copy_bundles  # here, since the other commands need none of it

    yield from (f"{copy}" for copy in copy_bundles(folder))
