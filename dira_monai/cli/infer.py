"""The command ``python -m dira_monai infer``."""

from collections.abc import Iterator
from typing import Any

from ..utils.errors import InputError
from .deferred import outline, takes_options_of


@takes_options_of(outline("apps.infer.run", "infer"))
def infer(bundle: str, *images: str, **values: Any) -> Iterator[str]:
    """Run a bundle's inference.json on files, folders and DICOM series; needs the values that its training was given.

    Args:
        bundle: folder of the bundle, its inference.json, or folder of a run that holds a finished bundle.
        images: files, folders that are searched, or folders of one DICOM series each.
        values: of inference.json to replace, such as --class_names "[background, liver]" --output_dir DIR --device cpu.
    """
    from ..apps.infer import infer as run  # here, since the other commands need none of it

    result = run(bundle, images, **values)
    if not result.failed:
        yield "\n".join(result.describe())
        return
    print("\n".join(result.describe()))
    first = result.failed[0]
    raise InputError(f"{len(result.failed)} of {len(result.rows)} images failed, first {first.file}: {first.note}")
