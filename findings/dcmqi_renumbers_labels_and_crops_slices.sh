#!/usr/bin/env bash
# A label map that goes through dcmqi into a DICOM segmentation and back has other numbers and fewer slices.
#
# Versions: dcmqi 1.5.7 (the release of the package index), pydicom 3.0.2, SimpleITK 2.5.7, numpy 2.4.6.
# itkimage2segimage writes a segment for each label and numbers them 1, 2, ... (as DICOM asks), so labels 1 and 3 become
# 1 and 2; it says so nowhere, and the number that was is not in the file. segimage2itkimage then writes images of the
# frames that are there alone: 4 of 8 slices, with the origin moved to the first of them. Who compares such a volume with
# the image voxel by voxel, or takes labels by number, is wrong without a word: go by place, and by segment label.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet dcmqi==1.5.7 pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

study, series, frame = (generate_uid() for _ in range(3))
Path("ct").mkdir()
for k in range(8):
    ct, ct.file_meta = Dataset(), FileMetaDataset()
    ct.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ct.SOPClassUID, ct.SOPInstanceUID = CTImageStorage, generate_uid()
    ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.FrameOfReferenceUID = study, series, frame
    ct.PatientID, ct.PatientName, ct.PatientSex, ct.PatientBirthDate = "p", "A^B", "O", ""
    ct.StudyDate, ct.StudyTime, ct.StudyID, ct.AccessionNumber = "20200101", "000000", "1", ""
    ct.ReferringPhysicianName, ct.Modality, ct.SeriesNumber, ct.InstanceNumber = "", "CT", 1, k + 1
    ct.ImagePositionPatient, ct.ImageOrientationPatient = [0, 0, 2 * k], [1, 0, 0, 0, 1, 0]
    ct.PixelSpacing, ct.SliceThickness, ct.Rows, ct.Columns = [1, 1], 2, 16, 16
    ct.SamplesPerPixel, ct.PhotometricInterpretation, ct.PixelRepresentation = 1, "MONOCHROME2", 1
    ct.BitsAllocated, ct.BitsStored, ct.HighBit, ct.RescaleSlope, ct.RescaleIntercept = 16, 16, 15, 1, 0
    ct.PixelData = np.full((16, 16), k, np.int16).tobytes()
    ct.save_as(f"ct/{k}.dcm", enforce_file_format=True)

labels = np.zeros((8, 16, 16), np.uint8)
labels[2:5, 4:8, 4:8], labels[3:6, 9:12, 9:12] = 1, 3
image = SimpleITK.GetImageFromArray(labels)
image.SetSpacing((1, 1, 2))
SimpleITK.WriteImage(image, "labels.nii.gz")


def code(value, meaning):
    return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}


segments = [
    {
        **{"labelID": number, "SegmentLabel": str(number), "SegmentAlgorithmType": "MANUAL"},
        "SegmentedPropertyCategoryCodeSequence": code("123037004", "Anatomical Structure"),
        "SegmentedPropertyTypeCodeSequence": code("10200004", "Liver"),
    }
    for number in (1, 3)
]
texts = {"ContentCreatorName": "R", "ContentLabel": "SEG", "ContentDescription": "d", "SeriesDescription": "s"}
texts |= {"ClinicalTrialSeriesID": "1", "ClinicalTrialTimePointID": "1", "BodyPartExamined": ""}
texts |= {"SeriesNumber": "300", "InstanceNumber": "1"}
Path("meta.json").write_text(json.dumps(texts | {"segmentAttributes": [segments]}))


def run(program, *words):
    subprocess.run([Path(sys.executable).with_name(program), *words], check=True, stdout=subprocess.DEVNULL)


files = ["--inputImageList", "labels.nii.gz", "--inputDICOMDirectory", "ct", "--inputMetadata", "meta.json"]
run("itkimage2segimage", *files, "--outputDICOM", "seg.dcm")
Path("out").mkdir()
run("segimage2itkimage", "--inputDICOM", "seg.dcm", "--outputDirectory", "out", "--outputType", "nii", "--mergeSegments")
(name,) = Path("out").glob("*.nii.gz")
back = SimpleITK.ReadImage(str(name))
array = SimpleITK.GetArrayFromImage(back)
seen = array.shape, back.GetOrigin(), dict(zip(*(part.tolist() for part in np.unique(array, return_counts=True))))
print("labels in", labels.shape, "0", {1: 48, 3: 27}, "labels out", seen)
sys.exit(seen != ((4, 16, 16), (0.0, 0.0, 4.0), {0: 4 * 256 - 75, 1: 48, 2: 27}))
PY
echo "as described"
