"""The commands: ``python -m dira_monai COMMAND``; ``--help`` lists them.

Fire runs a command before it complains of words that are left over. A command therefore is a generator of the lines it
prints, started when all words are understood: a mistyped option ends the program before anything is done.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fire
from fire.decorators import SetParseFns

from .archive_command import pack, unpack, verify
from .datalist import MAX_ROWS, describe_datalist, make_datalist, summarize_datalist, write_datalist
from .errors import InputError
from .label_command import labelled
from .probe_command import probe
from .scans import first_file
from .scores import compare_scores
from .segmentation_command import seg
from .store import prepare as prepare_images
from .store import verify as verify_images
from .word_command import visual_words


class _Lines:
    """What a command prints; it runs when fire asks for the text, and has no member that a stray word could name."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def __str__(self) -> str:
        return "\n".join(self._lines)


def _later(command: Callable[..., Iterator[str]]) -> Callable[..., _Lines]:
    @functools.wraps(command)
    def deferred(*args: object, **kwargs: object) -> _Lines:
        return _Lines(command(*args, **kwargs))

    return deferred


@_later
@SetParseFns(str, directory=str, output=str, patient=str, patient_column=str, file_column=str)
def datalist(
    directory: str,
    *,
    output: str = "datalist.json",
    spatial_dims: int | None = None,
    in_channels: int = 1,
    patient: str = "auto",
    patient_column: str | None = None,
    file_column: str | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
    strict: bool = False,
    workers: int | None = None,
) -> Iterator[str]:
    """Check every image of a folder, split the patients into training and validation, and write the datalist.

    Args:
        directory: folder of PNG, JPEG, NIfTI, NRRD, MHD or DICOM files, searched with its sub-folders.
        output: JSON file to write.
        spatial_dims: 2 or 3; by default what most images have.
        in_channels: channels that every image must have; gray images fit 3.
        patient: auto, dicom (PatientID), folder, file, or a CSV file with the columns file, patient and perhaps split.
        patient_column: name of the patient's column in the CSV file.
        file_column: name of the file's column in the CSV file.
        validation_fraction: part of the patients kept for validation, 0.1 by default.
        seed: of the draw of these patients.
        strict: stop at the first image that cannot be used.
        workers: threads that read images.
    """
    made = make_datalist(
        directory,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        patient=patient,
        patient_column=patient_column,
        file_column=file_column,
        validation_fraction=validation_fraction,
        seed=seed,
        strict=strict,
        workers=workers,
    )
    write_datalist(made, output)
    yield from describe_datalist(made).splitlines()
    entries = [*made["training"], *made["validation"]]
    yield from _group("note", [(first_file(entry["image"]), entry["note"]) for entry in entries if entry["note"]])
    yield from _group("skipped", [(first_file(entry["image"]), entry["reason"]) for entry in made["skipped"]])
    yield f"{output}: {summarize_datalist(made)}"


def _group(title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    """One line a text, with the first name and the number of further ones that it holds for."""
    names: dict[str, list[str]] = {}
    for name, text in rows:
        names.setdefault(text.removeprefix(name).strip(" .:"), []).append(name)
    for text, group in list(names.items())[:MAX_ROWS]:
        yield f"{title}: {group[0]}{f' and {len(group) - 1} more' if len(group) > 1 else ''}: {text}"
    if len(names) > MAX_ROWS:
        yield f"{title}: {len(names) - MAX_ROWS} other reasons, all in the file"


@_later
@SetParseFns(str, str, datalist=str, output=str)
def prepare(
    datalist: str,
    output: str,
    *,
    config: str | None = None,
    overrides: dict | None = None,
    crop_body: bool = False,
    workers: int | None = None,
    verify: bool = False,
) -> Iterator[str]:
    """Store the images of a datalist as a pre-training bundle prepares them, for sets that do not fit into memory.

    The folder then is the bundle's dataset_dir. A run that was stopped goes on where it was.

    Args:
        datalist: JSON file of the command datalist.
        output: folder for images, prepared.json and datalist.json.
        config: folder of the bundle, or its train.json; by default that below bundles that suits the list.
        overrides: values of the configuration to replace, such as "{'spacing': [1, 1, 1], 'cache_dtype': 'int16'}".
        crop_body: cut away the air around the body.
        workers: threads that read images, each of which holds one.
        verify: prepare nothing; compare the stored files with their checksums.
    """
    if verify:
        broken = list(verify_images(output))
        yield from broken
        if broken:
            raise InputError(
                f"{len(broken)} files of {output} are not what was prepared; delete them and prepare again"
            )
        yield f"{output}: all files are what was prepared"
        return
    if not isinstance(overrides, dict | None):
        raise InputError(f"overrides must be an object such as {{'name': 'value'}}, got {overrides!r}.")
    made = prepare_images(datalist, output, config=config, overrides=overrides, crop_body=crop_body, workers=workers)
    entries = [*made["training"], *made["validation"]]
    size = sum((Path(output) / entry["image"]).stat().st_size for entry in entries)
    mean = sum(entry["stored_mean"] for entry in entries) / len(entries)
    yield f"{output}: {len(entries)} images, {size / 1e9:.2f} GB, mean {mean:.3f} of [0, 1]"
    yield f"pre-train with --dataset_dir {output}"


@_later
@SetParseFns(str, directory=str, kind=str)
def phantom(directory: str, *, kind: str = "ct", count: int = 24, seed: int = 0) -> Iterator[str]:
    """Write built-in phantoms, which are drawn and no real scans, with their labels.

    Args:
        directory: folder to write; the images go to its sub-folder images.
        kind: ct (volumes in HU) or xray.
        count: number of images.
        seed: the same seed gives the same phantoms.
    """
    from .phantom import write_phantoms  # here, since the other commands need none of it

    write_phantoms(directory, kind=kind, count=count, seed=seed)
    yield f"{count} {kind} phantoms in {Path(directory) / 'images'}"


@_later
@SetParseFns(str, bundle=str, dataset_dir=str, output_dir=str, boxes=str, masks=str, finding=str, datalist=str)
def localize(
    bundle: str,
    *,
    dataset_dir: str,
    output_dir: str,
    boxes: str | None = None,
    masks: str | None = None,
    finding: str | None = None,
    datalist: str | None = None,
    overrides: dict | None = None,
    weights: str | None = None,
    target_layer: str | None = None,
    threshold: float = 0.5,
    component: str = "largest",
    patient: str | None = None,
    label_map: dict | None = None,
    strict: bool = False,
    allow_leak: bool = False,
    device: str | None = None,
    pictures: int = 8,
) -> Iterator[str]:
    """Compare where a trained classifier looks (Grad-CAM) with boxes that a person drew.

    Args:
        bundle: folder of the classifier's bundle, or its inference.json.
        dataset_dir: folder of the images.
        output_dir: folder for localization.json, localization.csv and localization.png.
        boxes: CSV file with the columns file, finding, x, y, w, h (or left, top, right, bottom).
        masks: folder of label maps named like the images, instead of boxes.
        finding: class that all labels of the masks stand for; by default the label's number is mapped by label_map.
        datalist: JSON file that the classifier was trained with; by default the one of the run of the weights.
        overrides: values of inference.json to replace, such as "{'image_size': [96, 96]}".
        weights: by default models/model.pt in the bundle.
        target_layer: whose features make the map; by default layer4, or the last one before the pooling.
        threshold: of the map, which lies in 0 to 1.
        component: largest (one box, around the largest component) or each (one box a component).
        patient: dicom, folder, file, or a CSV file with the columns file and patient; by default that of the datalist.
        label_map: from words of the table to classes, or None to leave rows out: "{'Infiltrate': 'Infiltration'}".
        strict: stop at boxes or masks of images that are not there.
        allow_leak: report images whose patients were trained on instead of refusing them.
        device: such as cpu or cuda:0; by default that of inference.json.
        pictures: how many cases are drawn.
    """
    options = {name: value for name, value in locals().items() if name != "bundle"}
    from .localization_report import describe_report  # here, since the other commands need none of it
    from .localize import localize as run

    yield from describe_report(run(bundle, **options))
    yield f"{output_dir}: localization.json, localization.csv{', localization.png' if pictures else ''}"


@_later
@SetParseFns(str, file=str, output=str)
def import_weights(file: str, *, output: str) -> Iterator[str]:
    """Turn a published weight file into a plain state dict of a stock network, which the bundles take as pretrained.

    Known are the U-Nets of DiRA (2D), Models Genesis and TransVW (3D) and the ResNets of MoCo, Barlow Twins, SimSiam,
    torchvision and MedicalNet.

    Args:
        file: published file or training checkpoint; it is never loaded unsafely.
        output: file to write.
    """
    from .published import import_weights as run  # here, since the other commands need none of it

    yield from run(file, output)


@_later
@SetParseFns(str, file=str, output=str, layout=str)
def export_weights(file: str, *, output: str, layout: str) -> Iterator[str]:
    """Write the weights of a FlexibleUNet or a ResNet in names that other libraries read.

    Args:
        file: model.pt, encoder.pt or checkpoint.pt of a run.
        output: file to write.
        layout: torchvision (the encoder, without fc) or smp (the whole U-Net, for segmentation_models_pytorch).
    """
    from .published import export_weights as run  # here, since the other commands need none of it

    yield from run(file, output, layout)


@_later
def scores(*runs: str) -> Iterator[str]:
    """Print the test metrics of fine-tuning runs side by side, and where their pictures are.

    Args:
        runs: output folders of runs that were evaluated.
    """
    yield compare_scores([str(run) for run in runs])


def main() -> None:
    """Run the command line; what the user can mend ends with one sentence and status 1."""
    try:
        fire.Fire(
            {
                "datalist": datalist,
                "labelled": _later(labelled),
                "phantom": phantom,
                "prepare": prepare,
                "localize": localize,
                "probe": _later(probe),
                "visual-words": _later(visual_words),
                "scores": scores,
                "seg": _later(seg),
                "import-weights": import_weights,
                "export-weights": export_weights,
                "pack": _later(pack),
                "verify": _later(verify),
                "unpack": _later(unpack),
            },
            name="dira_monai",
        )
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
