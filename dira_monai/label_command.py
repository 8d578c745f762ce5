"""The command ``python -m dira_monai labelled``."""

from collections.abc import Iterator

from fire.decorators import SetParseFns

from .datalist import write_datalist
from .label_listing import TEST_FRACTION, make_labelled_datalist
from .label_overlap import check_overlap
from .label_splits import warn_of_absent_classes
from .labelled import describe_labelled
from .listing import VALIDATION_FRACTION


@SetParseFns(
    str,
    directory=str,
    task=str,
    output=str,
    labels=str,
    label_column=str,
    patient=str,
    exclude_patients_of=str,
    pretraining_list=str,
)
def labelled(
    directory: str,
    *,
    task: str,
    class_names: list[str],
    output: str = "datalist.json",
    labels: str | None = None,
    multi_label: bool = False,
    label_threshold: float | None = None,
    label_values: list[float] | None = None,
    label_column: str | None = None,
    label_map: dict[str, str | None] | None = None,
    spatial_dims: int | None = None,
    in_channels: int = 1,
    patient: str = "auto",
    test_fraction: float = TEST_FRACTION,
    validation_fraction: float = VALIDATION_FRACTION,
    seed: int = 0,
    exclude_patients_of: str | None = None,
    pictures_only: bool = True,
    pretraining_list: str | None = None,
    allow_overlap: bool = False,
    strict: bool = False,
    workers: int | None = None,
) -> Iterator[str]:
    """Check every labeled image of a folder, split the patients, and write the datalist for fine-tuning.

    Args:
        directory: folder with images and labels (or masks), with images and labels.csv, or with one folder a class.
        task: segmentation or classification.
        class_names: such as "[background, lung]", in the order of their numbers.
        output: JSON file to write.
        labels: folder of the label maps, or CSV file of the labels.
        multi_label: an image may have any number of the classes.
        label_threshold: label maps have class 1 where their value is above.
        label_values: the value of each class in the label maps, such as "[0, 255]".
        label_column: name of the label's column in the CSV file.
        label_map: class of a word in the CSV file, or None to leave its rows out, such as "{virus: pneumonia}".
        spatial_dims: 2 or 3; by default what most images have.
        in_channels: channels that every image must have; gray images fit 3.
        patient: auto, dicom (PatientID), folder, file, or a CSV file with the columns file, patient and perhaps split.
        test_fraction: part of the training patients for test, where no table gives them.
        validation_fraction: part of the other patients for validation, where no table gives them.
        seed: of the draws of these patients.
        exclude_patients_of: a split of the table, whose patients are left out.
        pictures_only: in 2D skip all but PNG and JPEG, which the bundles read unless they get another reader.
        pretraining_list: datalist of the pre-training, which must not hold test images or patients.
        allow_overlap: say so, but go on where it does.
        strict: stop at the first image that cannot be used.
        workers: threads that read images.
    """
    made = make_labelled_datalist(
        directory,
        task,
        [str(name) for name in class_names] if isinstance(class_names, list | tuple) else class_names,
        labels=labels,
        multi_label=multi_label,
        label_threshold=label_threshold,
        label_values=label_values,
        label_column=label_column,
        label_map=label_map and {str(word): name for word, name in label_map.items()},
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        patient=patient,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
        exclude_patients_of=exclude_patients_of,
        pictures_only=pictures_only,
        strict=strict,
        workers=workers,
    )
    yield describe_labelled(made)
    yield from warn_of_absent_classes(made)
    yield from check_overlap(made, output, pretraining_list, allow_overlap) if pretraining_list else []
    write_datalist(made, output)
    yield f"{output} is written"
