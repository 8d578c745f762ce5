"""The command ``python -m dira_monai seg``."""

from collections.abc import Iterator, Sequence

from fire.decorators import SetParseFns


@SetParseFns(str, str, str, codes=str, series_uid=str, algorithm=str)
def seg(
    series: str,
    label_map: str,
    output: str,
    *,
    class_names: Sequence[str],
    codes: str | None = None,
    series_uid: str | None = None,
    algorithm: str = "dira_monai",
) -> Iterator[str]:
    """Write a label map as a DICOM segmentation (SEG) of the series that it was made from; needs highdicom.

    Args:
        series: folder of the DICOM series, or one DICOM file (an X-ray, a multi-frame file).
        label_map: such as NIfTI, in whatever orientation and spacing; values are the numbers of the classes.
        output: file to write.
        class_names: such as "['background', 'liver', 'tumor']".
        codes: JSON file, such as {"liver": {"type": ["10200004", "SCT", "Liver"], "color": [200, 80, 80]}}.
        series_uid: of the series, where the folder holds several.
        algorithm: name that is written as that of the algorithm.
    """
    from .segmentation_objects import write_segmentation  # here, since the other commands need none of it

    options = {"codes": codes, "series_uid": series_uid, "algorithm": algorithm}
    yield write_segmentation(series, label_map, output, class_names, **options)  # type: ignore[arg-type]
