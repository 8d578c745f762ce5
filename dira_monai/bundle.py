"""Where a bundle stands on disk and what it is given."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_words import config_files
from .errors import InputError
from .scans import find_images, first_file, without_label_maps


def bundle_root() -> str:
    """Folder of the bundle that runs: that of ``--config_file`` on the command line, else the working directory.

    MONAI does not tell a config where it lies; with the working directory alone, a run from elsewhere would write its
    weights there, and two bundles would overwrite each other's.
    """
    files = config_files(sys.argv)
    if not files:
        return "."
    folder = Path(files[0]).resolve().parent
    return str(folder.parent if folder.name == "configs" else folder)


def inference_items(
    image: str | Sequence[str] | None, dataset_dir: str | None, output_dir: str
) -> list[dict[str, Any]]:
    """Entries for inference: the one image that is named, or every image of a folder but label maps and results in it.

    Args:
        image: path of a file or of the folder of one DICOM series, or the files of one.
        dataset_dir: folder that is searched where no image is named.
        output_dir: folder of the results; what it holds is left out where it lies in ``dataset_dir``.

    Raises:
        InputError: if neither is given, or nothing is found.
    """
    if image is not None:
        files = [image] if isinstance(image, str) else list(image)
        for file in files:
            if not Path(file).exists():
                raise InputError(f"{file}: no such file")
        return [{"image": image}]
    if dataset_dir is None:
        raise InputError("nothing to restore: give --image FILE or --dataset_dir DIR")
    root, results = Path(dataset_dir), Path(output_dir).resolve()
    images = find_images(root)
    if root.resolve() in results.parents:
        images = [image for image in images if results not in (root / first_file(image)).resolve().parents]
    found = without_label_maps(images)
    if not found:
        raise InputError(f"{dataset_dir}: holds no image that can be read")
    return [{"image": str(root / f) if isinstance(f, str) else [str(root / part) for part in f]} for f in found]
