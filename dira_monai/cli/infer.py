"""The command ``python -m dira_monai infer``."""

from collections.abc import Iterator
from typing import Any

from .deferred import parse_values


def infer(bundle: str, *images: str, **values: Any) -> Iterator[str]:
    """Run a bundle's inference.json on files, folders and DICOM series; needs the values that its training was given.

    Args:
        bundle: folder of the bundle, or its inference.json.
        images: files, folders that are searched, or folders of one DICOM series each.
        values: of inference.json to replace, such as --class_names "[background, liver]" --output_dir DIR --device cpu.
    """
    from ..apps.infer import infer as run  # here, since the other commands need none of it

    yield f"{run(bundle, images, parse_values(values))} holds the results"
