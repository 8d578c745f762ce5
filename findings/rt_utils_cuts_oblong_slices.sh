#!/usr/bin/env bash
# rt-utils reads an RTSTRUCT into masks that are a pixel wider than the contour, and that lose parts of oblong slices.
#
# Versions: rt-utils 1.2.7, pydicom 3.0.2, opencv-python 5.0.0.93, numpy 2.4.6.
# A square of 10 x 10 mm on pixels of 1 mm becomes 11 x 11 pixels, 21 % more, since the filled polygon keeps its border
# on all sides. For slices of 24 rows and 40 columns the mask has 40 rows and 24 columns, while contours are drawn by
# row and column as before: a square right of column 24 is not there at all, one across it is cut. Nothing is said.
# Slices of as many rows as columns, the usual ones, are not concerned by the second.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet rt-utils==1.2.7 pydicom==3.0.2 opencv-python==5.0.0.93 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import sys
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from rt_utils import RTStructBuilder

STUDY, SERIES, FRAME = (generate_uid() for _ in range(3))


def make(**tags):
    made = Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def save(file, **tags):
    made = make(StudyInstanceUID=STUDY, PatientID="p", PatientName="A^B", PatientSex="O", PatientBirthDate="", **tags)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20200101", "000000", "1", ""
    made.ReferringPhysicianName = ""
    made.save_as(file, enforce_file_format=True)


def count(rows, columns, lefts):
    """Shape of the masks, and the pixels of each square of 10 mm whose left edge lies at x."""
    folder = Path(f"{rows}x{columns}")
    folder.mkdir()
    names = [generate_uid() for _ in range(3)]
    for k, name in enumerate(names):
        save(
            folder / f"{k}.dcm",
            **{"SOPClassUID": CTImageStorage, "SOPInstanceUID": name, "SeriesInstanceUID": SERIES, "Modality": "CT"},
            **{"FrameOfReferenceUID": FRAME, "InstanceNumber": k + 1, "SeriesNumber": 1, "SliceThickness": 2},
            **{"ImagePositionPatient": [0, 0, 2 * k], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            **{"PixelSpacing": [1, 1], "Rows": rows, "Columns": columns, "SamplesPerPixel": 1},
            **{"PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": 1, "RescaleSlope": 1},
            **{"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": 0},
            PixelData=np.full((rows, columns), k, np.int16).tobytes(),
        )
    slices = [make(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=name) for name in names]
    series = make(SeriesInstanceUID=SERIES, ContourImageSequence=slices)
    study = make(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=STUDY,
        RTReferencedSeriesSequence=[series],
    )
    contours = []
    for number, x in enumerate(lefts, 1):
        points = [(x, 8, 2), (x + 10, 8, 2), (x + 10, 18, 2), (x, 18, 2)]
        contour = make(
            ContourImageSequence=[slices[1]],
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=4,
            ContourData=[float(value) for point in points for value in point],
        )
        contours.append(make(ROIDisplayColor=[255, 0, 0], ContourSequence=[contour], ReferencedROINumber=number))
    roi = {"ReferencedFrameOfReferenceUID": FRAME, "ROIGenerationAlgorithm": "MANUAL"}
    file = folder.with_suffix(".dcm")
    save(
        file,
        **{"SOPClassUID": RTStructureSetStorage, "SOPInstanceUID": generate_uid(), "Modality": "RTSTRUCT"},
        **{"SeriesInstanceUID": generate_uid(), "SeriesNumber": 2, "StructureSetLabel": "x"},
        ReferencedFrameOfReferenceSequence=[make(FrameOfReferenceUID=FRAME, RTReferencedStudySequence=[study])],
        StructureSetROISequence=[make(ROINumber=n, ROIName=f"{x}", **roi) for n, x in enumerate(lefts, 1)],
        ROIContourSequence=contours,
        RTROIObservationsSequence=[
            make(ObservationNumber=n, ReferencedROINumber=n, RTROIInterpretedType="", ROIInterpreter="")
            for n, _ in enumerate(lefts, 1)
        ],
    )
    read = RTStructBuilder.create_from(str(folder), str(file))
    masks = [read.get_roi_mask_by_name(f"{x}") for x in lefts]
    print(rows, "rows,", columns, "columns: masks", masks[0].shape, "pixels of 100 mm2:", *(int(m.sum()) for m in masks))
    return masks[0].shape, [int(mask.sum()) for mask in masks]


lefts = [10, 18, 28]
seen = count(40, 40, lefts), count(24, 40, lefts)
sys.exit(seen != (((40, 40, 3), [121, 121, 121]), ((40, 24, 3), [121, 66, 0])))
PY
echo "as described"
