"""Which images a folder holds, and the array of one."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from ..dicom.headers import group_series, is_dicom
from ..utils.errors import InputError

LOGGER = logging.getLogger(__name__)
PIL_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NIFTI_SUFFIXES = (".nii", ".nii.gz", ".nii.bz2", ".img", ".mgz", ".mgh")  # by nibabel; .img with its .hdr
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mhd", ".mha")
_NO_IMAGE = re.compile(  # parts of images, tables, texts and archives, of which no list tells
    r"\.(hdr|z?raw|bvals?|bvecs?|[ct]sv|xlsx?|txt|json|xml|ya?ml|md|rst|html?|pdf|docx?|log|cfg|ini|py|ipynb|sh|zip|tar|pt)"
    r"(\.gz)?$"
)
HIDDEN = "transparent pixels have other values than 0, which are taken"  # note of a picture
SUFFIXES = PIL_SUFFIXES + NIFTI_SUFFIXES + ITK_SUFFIXES
Image = str | list[str]  # one file, the files of one DICOM series in slice order, or one file a channel
IMAGE_FOLDERS = ("images", "imagestr")
_OF_IMAGES = re.compile(r"(?:^|/)(?:images(?:ts|val?)|[^/]*unlabell?ed[^/]*)/", re.IGNORECASE)
_IMAGE_FOLDER = re.compile(r"(?:\w[.)] ?)?(?:(?:original|raw|tissue)[_\-. ]?)?(?:images?|imgs?)")  # 1. original images
SPLIT_WORDS = {  # of folders and tables, and the list that they mean
    **dict.fromkeys(("train", "training", "trainval"), "training"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    # Spanish, Portuguese, French, Italian, German
    **dict.fromkeys(
        ("entrenamiento", "treinamento", "treino", "entrainement", "entraînement", "apprentissage", "addestramento"),
        "training",
    ),
    **dict.fromkeys(("validacion", "validación", "validacao", "validação", "validazione", "validierung"), "validation"),
    **dict.fromkeys(("prueba", "pruebas", "teste"), "test"),
}
SPLIT = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
_SPLIT_OF = re.compile(  # train_masks, masks-test, testImages, MoNuSegTestData, but no latest, Trainer, test-retest
    rf"(?!.*retest|(?:image|label)sval$)(.*?)(?:(?<![a-z])|(?-i:(?<=[a-z])(?=[A-Z])))({SPLIT})"
    r"(?=(?:data|(?:data)?set|images?|imgs?|inputs?|masks?|labels?)?(?:(?-i:[A-Z])|[^a-z]|$))(.*)",
    re.IGNORECASE | re.DOTALL,
)
_MAP = (
    r"segs?|segm|segmentations?|masks?|msk|gt|ground[_\- ]?truths?|labels?|labelmaps?|annos?|annotations?|contours?|"
    r"overlays?|wmh|reference|(?:aparc[\w.]*\+)?aseg|wmparc|[12](?:st|nd)HO"
)
_MAP_FOLDER = re.compile(  # but none of both, as Dataset_BUSI_with_GT and images_and_masks
    r"(?!.*with[_\-. ](?:gts?|ground|masks?|labels?|seg)|.*(?:image|img|scan)s?[_\-. ]and[_\-. ]|"
    r".*[_\-. ]and[_\-. ](?:image|img|scan))(?:"
    rf"\d*(?:{_MAP})(?:[_\-. ]?[a-z]?\d+)?|ground|(?:\w+_)?manual|derivatives|"
    r"(?:.+[_\-. ])?(?:labels|masks)(?:tr|ts|val?)|"
    r"(?:labels|segmentations|annotations?)[_\-]\w+|(?:.*[_\-. ])?\w*masks?(?:[_\-. ].*)?|"
    r".+[_\-. ](?:ground[_\-. ]?truths?|segmentations?|labels?|gts?|annotations?)(?:[_\-. ]?v?\d+)?)",
    re.IGNORECASE,
)
_MAP_ENDING = re.compile(
    rf"(?:[_\-. ]\d?(?:(?:{_MAP}|[a-z]+seg|manual|superpixels|lesions?)[_\-. ]?\d*|roi))+$", re.IGNORECASE
)
_MAP_START = re.compile(
    rf"^(?:{_MAP})(?:[_\-. ]?(?=\d+$)|$)|^(?:masks?|segs?|segmentations?|gt|labels?)_(?=.)", re.IGNORECASE
)


def _tell(error: OSError) -> None:
    LOGGER.warning(f"{error.filename} cannot be searched ({error.strerror}), so that what is in there is left out")


def find_files(directory: str | Path, on_error: Callable[[OSError], None] = _tell) -> tuple[list[str], list[str]]:
    """The image files and the DICOM files below a folder, sorted, as POSIX paths relative to it.

    Hidden files and folders are left out. Links are followed, each folder once. A folder that is missing is refused.

    Args:
        directory: that is searched.
        on_error: called for each folder that cannot be read, which is left out; by default a warning.
    """
    root = Path(directory)
    if not root.is_dir():
        raise InputError(
            f"{root} {'is a file, not a folder; name the folder of the images' if root.exists() else 'does not exist'}."
        )
    images, dicom = [], []
    for file in _walk(root, on_error):
        name = file.relative_to(root).as_posix()
        if file.name.lower().endswith(SUFFIXES):
            images.append(name)
        elif is_dicom(file):
            dicom.append(name)
    return sorted(images), sorted(dicom)


def count_other_formats(directory: str | Path, images: Sequence[Image]) -> dict[str, int]:
    """How many files of each suffix are neither among the images of a folder nor tables, texts and the like."""
    root, known = Path(directory), {file for image in images for file in files_of(image)}
    others = [file for file in _walk(root, None) if file.suffix and file.relative_to(root).as_posix() not in known]
    names = [file.name.lower() for file in others]
    return dict(Counter(PurePosixPath(name).suffix for name in names if not _NO_IMAGE.search(name)).most_common())


def count_formats(counts: Mapping[str, int]) -> str:
    """Such as ``16 files of other formats: .gif 12, .webp 4``; empty where there are none."""
    listed = ", ".join(f"{suffix} {count}" for suffix, count in counts.items())
    return f"{sum(counts.values())} files of other formats: {listed}" if counts else ""


def _walk(root: Path, on_error: Callable[[OSError], None] | None) -> Iterator[Path]:
    seen = set()
    for folder, folders, files in os.walk(root, onerror=on_error, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            seen.add(real)
            yield from (Path(folder, name) for name in files if not name.startswith("."))


def find_images(directory: str | Path, on_error: Callable[[OSError], None] = _tell) -> list[Image]:
    """Every image below a folder, sorted: its relative POSIX path, or the list of them in slice order for DICOM.

    Known are ``SUFFIXES`` and, by their content or .dcm, DICOM files of whatever name. Each DICOM series of a folder is
    an image of its own.

    Args:
        directory: that is searched.
        on_error: as in ``find_files``.

    Raises:
        InputError: as ``find_files``, or if there are DICOM files and SimpleITK is missing.
    """
    root = Path(directory)
    images, dicom = find_files(root, on_error)
    headers = tqdm([root / name for name in dicom], "DICOM headers", leave=False, disable=None if dicom else True)
    series = [[file.relative_to(root).as_posix() for file in files] for files in group_series(headers)]
    return sorted([*images, *series], key=first_file)


def kind_folder(path: str) -> tuple[str, int]:
    """The last folder of a path that is named as one of images or label maps, and its place; or "", -1.

    The name is in lower case and without the word of a split: masks of ``train_masks``, images of ``test-image``.
    """
    folders = [split_part(part)[1].lower() for part in path.split("/")[:-1]]
    folders = [IMAGE_FOLDERS[0] if _IMAGE_FOLDER.fullmatch(part) else part for part in folders]
    named = [place for place, part in enumerate(folders) if part in IMAGE_FOLDERS or _MAP_FOLDER.fullmatch(part)]
    return (folders[named[-1]], named[-1]) if named else ("", -1)


@cache  # lists of 100,000s of files ask for each folder of each path, several times
def split_part(folder: str) -> tuple[str, str]:
    """The first word of a split in the name of a folder, or "", and the rest: train, masks of ``train_masks``."""
    if not (named := _SPLIT_OF.fullmatch(folder)):
        return "", folder
    start, word, end = named.groups()
    return word, f"{start}{end.lstrip('_-. ')}".strip("_-. ")


def without_map_words(name: str) -> str:
    """A name without what tells that it is a label map: ``x`` of ``x_seg`` and ``x_mask_1``, 7 of ``mask_7``."""
    return _MAP_START.sub("", _MAP_ENDING.sub("", name))


def is_label_map(path: str) -> bool:
    """Whether a file is a label map or an overlay by its name, or by a folder as ``labels`` or ``derivatives``."""
    kind, name = kind_folder(path)[0], stem(path)
    return (kind not in ("", *IMAGE_FOLDERS)) or without_map_words(name) != name


def without_label_maps(images: Sequence[Image]) -> list[Image]:
    """Those that are no label map by their names, or all where all are.

    Where folders hold label maps and others are named ``images``, ``imagesTs``, ``unlabeled`` or the like, only what
    lies in the latter: further folders of a labeled set, such as those of lesions, hold label maps too.
    """
    kept = [image for image in images if not is_label_map(first_file(image))]
    labeled = any(kind_folder(first_file(image))[0] not in ("", *IMAGE_FOLDERS) for image in images)
    inside = [image for image in kept if _is_of_images(first_file(image))] if labeled else []
    return inside or kept or list(images)


def _is_of_images(path: str) -> bool:
    return kind_folder(path)[0] in IMAGE_FOLDERS or bool(_OF_IMAGES.search(path))


def without_results(images: Sequence[Image], directory: str | Path, output_dir: str | Path) -> list[Image]:
    """Those images of a folder that do not lie in ``output_dir`` where that is below the folder."""
    root, results = Path(directory), Path(output_dir).resolve()
    if root.resolve() not in results.parents:
        return list(images)
    return [image for image in images if results not in (root / first_file(image)).resolve().parents]


def stem(file: str) -> str:
    """The file name without its suffix, or without both of ``.nii.gz`` and ``.nii.bz2``."""
    name = file.rpartition("/")[2]
    inner = name[: name.rindex(".")] if name.lower().endswith((".nii.gz", ".nii.bz2")) else name
    return inner.rpartition(".")[0] or inner


def first_file(image: Image) -> str:
    """The path that names an image: its own, or that of the first slice."""
    return image if isinstance(image, str) else image[0]


def is_series(image: Image) -> bool:
    """Whether it is a DICOM series: the list of its files, or their folder; a list of others are channels."""
    return not first_file(image).lower().endswith(SUFFIXES)


def files_of(image: Image) -> list[str]:
    """Its file, or those of its slices."""
    return [image] if isinstance(image, str) else list(image)


def map_files(image: Image, change: Callable[[str], str]) -> Image:
    """The image with each of its files replaced by what ``change`` makes of it."""
    return change(image) if isinstance(image, str) else [change(file) for file in image]


def read_image(image: Image, directory: str | Path = ".", resample: bool = True) -> tuple[np.ndarray, dict]:
    """The array, spatial axes first and channels last, and the meta data of ``ScanReader``, with its errors."""
    from .reader import ScanReader  # here, since it imports MONAI, which no --help needs

    reader = ScanReader(resample)
    return reader.get_data(reader.read([Path(directory, file) for file in files_of(image)]))
