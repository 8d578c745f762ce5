#!/usr/bin/env bash
# Readers of DICOM series give the whole volume the number type of its first slice, and wrap or cut the other slices.
#
# Versions: monai-deploy-app-sdk 4.0.0 (with holoscan-cu13 4.6.0, runs without a GPU), monai 1.6.1, SimpleITK 2.5.7,
# itk 5.4.7, pydicom 3.0.2, torch 2.13.0 (CPU). Synthetic series of three slices, no warning from any of them.
# CT whose first slice is above 0 HU throughout: Deploy's DICOMSeriesToVolumeOperator allocates uint16, and air of
# -1000 HU in the next slice becomes 64536; the other readers give -1000.
# (Without the optional highdicom, monai-deploy-app-sdk 4.0.0 even makes `import monai` fail.)
# PET, which has a RescaleSlope for each slice, the first one 1: 0.25 and 1.25 of the next slices become 0 and 1 in Deploy,
# in SimpleITK and in MONAI's default reader (ITK); MONAI's PydicomReader gives them as they are.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet torch==2.13.0
"$T/env/bin/python" -m pip install --quiet torch==2.13.0 monai==1.6.1 monai-deploy-app-sdk==4.0.0 holoscan-cu13==4.6.0 \
  numpy==2.4.6 pydicom==3.0.2 SimpleITK==2.5.7 itk==5.4.7 highdicom==0.28.2
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import json
import logging
import sys
from pathlib import Path

import numpy as np
import SimpleITK
from monai.data import PydicomReader
from monai.deploy.core import Fragment
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.transforms import LoadImage
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

logging.disable(logging.CRITICAL)
RULES = '{"selections": [{"name": "all", "conditions": {"SeriesDescription": "phantom"}}]}'


def write_series(folder, modality, slices, slopes, intercept):
    """Slices of stored numbers, 8 x 6 pixels, 2 mm apart, from the feet up."""
    folder.mkdir()
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    storage = {"CT": CTImageStorage, "PT": PositronEmissionTomographyImageStorage}[modality]
    for number, (pixels, slope) in enumerate(zip(slices, slopes, strict=True)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = storage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        item.SOPClassUID, item.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
        item.StudyInstanceUID, item.SeriesInstanceUID, item.FrameOfReferenceUID = study, series, frame
        item.Modality, item.InstanceNumber, item.SeriesNumber = modality, number + 1, 1
        item.PatientID = item.PatientName = item.StudyID = "phantom"
        item.SeriesDescription = "phantom"
        item.ImagePositionPatient, item.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
        item.PixelSpacing, item.SliceThickness = [1, 1], 2
        item.Rows, item.Columns = pixels.shape
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated = item.BitsStored = 16
        item.HighBit, item.PixelRepresentation = 15, 0
        item.RescaleIntercept, item.RescaleSlope = intercept, slope
        item.PixelData = pixels.astype(np.uint16).tobytes()
        item.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def by_deploy(folder):
    fragment = Fragment()
    studies = DICOMDataLoaderOperator(fragment, input_folder=folder, name="load").load_data_to_studies(folder)
    selected = DICOMSeriesSelectorOperator(fragment, rules=RULES, name="select").filter(
        json.loads(RULES), studies, False
    )
    return DICOMSeriesToVolumeOperator(fragment, name="volume").convert_to_image(selected).asnumpy()


def read_all(folder):
    """The first voxel of each slice by four readers."""
    monai = {None: "MONAI, ITKReader", PydicomReader: "MONAI, PydicomReader"}
    volumes = {name: LoadImage(reader=reader)(folder).numpy().T for reader, name in monai.items()}
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(folder)
    volumes["SimpleITK"] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(names))
    volumes["MONAI Deploy"] = by_deploy(Path(folder))
    return {name: [float(value) for value in volume[:, 0, 0]] for name, volume in volumes.items()}


def slices(*values):
    return [np.full((8, 6), value) for value in values]


# soft tissue alone in the first slice, air in the second; activity with a slope for each slice, the first an integer
write_series(Path("CT"), "CT", slices(1040, 24, 1064), [1, 1, 1], -1024)
write_series(Path("PT"), "PT", slices(4, 1, 5), [1, 0.25, 0.25], 0)
ct, cut = [16.0, -1000.0, 40.0], [4.0, 0.0, 1.0]
pet = [4.0, 0.25, 1.25]
expected = {
    "CT": {"MONAI, ITKReader": ct, "MONAI, PydicomReader": ct, "SimpleITK": ct, "MONAI Deploy": [16.0, 64536.0, 40.0]},
    "PT": {"MONAI, ITKReader": cut, "MONAI, PydicomReader": pet, "SimpleITK": cut, "MONAI Deploy": cut},
}
seen = {folder: read_all(folder) for folder in expected}
for folder, rows in seen.items():
    for name, values in rows.items():
        print(f"{folder} {name:20} {values}")
sys.exit(seen != expected)
PY
echo "as described"
