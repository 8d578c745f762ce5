"""The commands ``probe``, ``localize``, ``merge-masks``, ``seg`` and ``visual-words``, which run the apps.

Each imports what it runs, since ``--help`` needs none of it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from .deferred import outline, takes_options_of


@takes_options_of(outline("apps.probing.probe", "probe"))
def probe(*, list: str, weights: str, config_file: str | list[str], **options: Any) -> Iterator[str]:
    """Tell what an encoder knows before fine-tuning: k-NN and a linear classifier on its frozen features, test AUC.

    Args:
        list: JSON file for classification, as the command labeled writes it.
        weights: model.pt or encoder.pt of a pre-training.
        config_file: train.json of its bundle, or "['.../train.json','.../METHOD.json']".
        **options: see ``probe``.
    """
    from ..apps.probing.evaluate import describe_probe
    from ..apps.probing.probe import probe as run_probe

    yield describe_probe(run_probe(list, weights, config_file, **options))
    yield f"{options.get('output', 'probe.json')} is written"


@takes_options_of(outline("apps.localization.localize", "localize"))
def localize(bundle: str, **options: Any) -> Iterator[str]:
    """Compare where a trained classifier looks (Grad-CAM) with boxes that a person drew.

    Args:
        bundle: folder of the classifier's bundle, or its inference.json.
        **options: see ``localize``.
    """
    from ..apps.localization.localize import localize as run_localize
    from ..apps.localization.report import describe_report

    yield from describe_report(run_localize(bundle, **options))
    picture = ", localization.png" if options.get("pictures", True) else ""
    yield f"{options['output_dir']}: localization.json, localization.csv{picture}"


@takes_options_of(outline("apps.merging.merge", "merge_masks"))
def merge_masks(directory: str, output: str, **options: Any) -> Iterator[str]:
    """Merge several masks of an image, a file each, into one label map, for fine-tuning.

    Args:
        directory: folder of images and masks, such as ct.nii.gz and segmentations/liver.nii.gz of each case.
        output: folder to write, which is then the --labels of labeled and finetune.
        **options: see ``merge_masks``.
    """
    from ..apps.merging.merge import merge_masks as run_merge

    yield from run_merge(directory, output, **options)


@takes_options_of(outline("images.dicom_seg.write", "write_segmentation"))
def seg(series: str, label_map: str, output: str, *, class_names: Sequence[str], **options: Any) -> Iterator[str]:
    """Write a label map as a DICOM segmentation (SEG) of the series that it was made from; needs highdicom.

    Args:
        series: folder of the DICOM series, or one DICOM file (an X-ray, a multi-frame file).
        label_map: such as NIfTI, in whatever orientation and spacing; values are the numbers of the classes.
        output: file to write.
        class_names: such as "['background', 'liver', 'tumor']".
        **options: see ``write_segmentation``.
    """
    from ..images.dicom_seg.write import write_segmentation

    yield write_segmentation(series, label_map, output, class_names, **options)


@takes_options_of(outline("apps.visual_words.discover", "visual_words"))
def visual_words(config: str, **options: Any) -> Iterator[str]:
    """Find visual words (TransVW) in a list of scans and store their cubes, for pre-training with transvw.json.

    Args:
        config: folder of a pre-training bundle, or its files "train.json,transvw.json"; images are prepared as it says.
        **options: see ``visual_words``.
    """
    from ..apps.visual_words.discover import visual_words as run_visual_words
    from ..apps.visual_words.report import describe_words

    yield from describe_words(run_visual_words(config, **options), options["output"])
