"""DICOM series in, DICOM segmentation out: a MONAI Deploy application for the bundle of a segmentation.

python app.py -i SERIES -m model.ts -o RESULTS
"""

from pathlib import Path

import numpy as np
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Image, IOType, Operator, OperatorSpec
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator, SegmentDescription
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.monai_bundle_inference_operator import (
    IOMapping,
    MonaiBundleInferenceOperator,
    get_bundle_config,
)
from pydicom.sr.codedict import Code, codes

from dira_monai import ScanReader
from dira_monai.dicom.headers import list_series

RULES = '{"selections": [{"name": "all", "conditions": {"Modality": "CT"}}]}'  # change it for MR, PET, ...
CODES = {"lung": codes.SCT.Lung, "heart": codes.SCT.Heart, "bone": codes.SCT.Bone}  # others get a private code


class SeriesReader(Operator):
    """Reads the selected series as ``infer`` does, in place of ``DICOMSeriesToVolumeOperator``.

    Refuses what cannot be one volume with a voxel for each pixel of each slice.
    """

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("series")
        spec.output("image")

    def compute(self, op_input, op_output, context) -> None:
        op_output.emit(read_selected(op_input.receive("series")), "image")


def read_selected(studies: list) -> Image:
    """Voxels (x, y, z) of the one selected series, with its affine; leaves its slices in the order of z.

    Raises:
        InputError: if the files are no even, complete series.
        ValueError: if not one series was selected, or if it is no upright stack of slices of one channel.
    """
    found = [selected.series for study in studies for selected in study.selected_series]
    if len(found) != 1:
        raise ValueError(f"expected one series that fits the rules, got {len(found)}")
    slices = found[0].get_sop_instances()
    files = [Path(item.get_native_sop_instance().filename) for item in slices]
    check_complete(files)
    reader = ScanReader(resample=False)
    array, meta = reader.get_data(reader.read(files))
    if len(files) < 2 or array.shape[2:] != (len(files),):
        raise ValueError(f"expected slices of one channel, got {array.shape} from {len(files)} files")
    if "note" in meta:  # a gantry tilt
        raise ValueError(f"{files[0].parent}: expected an upright series, got: {meta['note']}")
    slices.sort(key=_depth)  # the writer takes the planes of the label map in this order
    channel = {"original_channel_dim": "no_channel", "spatial_shape": array.shape}
    return Image(array.astype(np.float32), {"affine": meta["affine"], "space": "RAS", **channel})


def check_reader(reader: str | dict | None) -> None:
    """Nothing, if ``infer`` reads an upright, even series as this application does.

    Raises:
        ValueError: if the training read its images otherwise.
    """
    if reader not in (None, "dira_monai.ScanReader"):
        raise ValueError(f"expected a bundle with the reader null or dira_monai.ScanReader, got {reader}")


def check_complete(files: list[Path]) -> None:
    """Nothing, if the files are a whole volume: the loader leaves out, with a warning, what it cannot read.

    Raises:
        ValueError: if their folder has further slices of the volume, or if they are of several volumes.
    """
    volumes = [{*volume} for volume in list_series(files[0].parent)]
    if {*files} not in volumes:
        sizes = [len(volume) for volume in volumes]
        raise ValueError(f"{files[0].parent}: expected one volume of {len(files)} slices, got volumes of {sizes}")


def _depth(item) -> float:
    """Position of a slice along the normal of the series, in mm."""
    data = item.get_native_sop_instance()
    orientation = np.array(data.ImageOrientationPatient, dtype=float)
    return float(np.cross(orientation[:3], orientation[3:]) @ np.array(data.ImagePositionPatient, dtype=float))


class SegmentationApp(Application):
    """Loads, selects and reads a series, infers by the bundle, and writes one segmentation file."""

    def compose(self) -> None:
        context = Application.init_app_context(self.argv)
        config = get_bundle_config(context.model_path, "inference")
        check_reader(config.get("reader"))
        once = CountCondition(self, 1)  # without it the application never ends and writes file after file
        load = DICOMDataLoaderOperator(self, once, input_folder=Path(context.input_path), name="load")
        select = DICOMSeriesSelectorOperator(self, rules=RULES, all_matched=True, name="select")
        read = SeriesReader(self, name="read")
        infer = MonaiBundleInferenceOperator(
            self,
            app_context=context,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            bundle_path=context.model_path,
            name="infer",
        )
        write = DICOMSegmentationWriterOperator(
            self,
            segment_descriptions=describe(config["class_names"]),
            output_folder=Path(context.output_path),
            name="write",
        )
        self.add_flow(load, select)
        self.add_flow(select, read, {("study_selected_series_list", "series")})
        self.add_flow(read, infer, {("image", "image")})
        self.add_flow(infer, write, {("pred", "seg_image")})
        self.add_flow(select, write, {("study_selected_series_list", "study_selected_series_list")})


def describe(class_names: list[str]) -> list[SegmentDescription]:
    """A segment for each class but the background, in their order."""
    return [
        SegmentDescription(
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=CODES.get(name, Code(f"CLASS{number}", "99DIRA", name)),
            algorithm_name="dira_monai",
            algorithm_version="1",
        )
        for number, name in enumerate(class_names[1:], 1)
    ]


if __name__ == "__main__":
    SegmentationApp().run()
