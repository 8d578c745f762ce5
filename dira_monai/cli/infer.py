"""The command ``python -m dira_monai infer``."""

from collections.abc import Iterator
from typing import Any

from ..utils.errors import InputError
from .deferred import parse_values


def infer(
    bundle: str,
    *images: str,
    truth: str | None = None,
    dicom_seg: bool = False,
    pictures: bool = True,
    **values: Any,
) -> Iterator[str]:
    """Run a bundle's inference.json on files, folders and DICOM series; needs the values that its training was given.

    Args:
        bundle: folder of the bundle, its inference.json, or folder of a run that holds a finished bundle.
        images: files, folders that are searched, or folders of one DICOM series each.
        truth: datalist with the labels, of classification.
        dicom_seg: also write label maps of DICOM series as DICOM segmentations.
        pictures: also draw label maps over their images.
        values: of inference.json to replace, such as --class_names "[background, liver]" --output_dir DIR --device cpu.
    """
    from ..apps.infer import infer as run  # here, since the other commands need none of it

    result = run(bundle, images, truth=truth, dicom_seg=dicom_seg, pictures=pictures, **parse_values(values))
    if not result.failed:
        yield "\n".join(result.describe())
        return
    print("\n".join(result.describe()))
    first = result.failed[0]
    raise InputError(f"{len(result.failed)} of {len(result.rows)} images failed, first {first.file}: {first.note}")
