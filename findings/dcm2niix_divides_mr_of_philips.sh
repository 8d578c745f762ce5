#!/usr/bin/env bash
# dcm2niix gives MR of Philips numbers up to 181 times as large as nibabel and SimpleITK give of the same files.
#
# Versions: dcm2niix 1.0.20260724, nibabel 5.4.2, SimpleITK 2.5.7 (ITK 5.4), pydicom 3.0.2, numpy 2.4.6.
# Philips writes two scalings: RescaleSlope, the one of DICOM, and a private ScaleSlope (2005,100E). dcm2niix takes the
# second by itself ("precise" values: those of RescaleSlope divided by both slopes), readers of DICOM know the first
# alone; nibabel takes the first for PAR/REC unless asked for scaling="fp". `dcm2niix -p n` gives what the others give.
# Two scans that the others see alike part by the quotient of their private slopes. A network trained on NIfTI of
# dcm2niix thus meets other numbers in the clinic's DICOM, and thresholds mean something else. PAR/REC: the phantom that
# nibabel's package holds; DICOM: made here.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet dcm2niix==1.0.20260724 nibabel==5.4.2 SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
cd "$T"
"$T/env/bin/python" -W ignore - <<'PY'
import shutil
import subprocess
import sys
from pathlib import Path

import dcm2niix
import nibabel as nib
import numpy as np
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid


def convert(folder, *options):
    """The largest value of the volume that dcm2niix makes of a folder."""
    out = Path(f"{folder}{''.join(options)}.out")
    out.mkdir()
    command = [dcm2niix.bin, *options, "-o", str(out), "-f", "volume", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(float(nib.load(out / "volume.nii").get_fdata().max()))


def write_series(folder, scale_slope):
    """Three slices of stored numbers up to 1000, RescaleSlope 2."""
    Path(folder).mkdir()
    study, series, frame = (generate_uid() for _ in range(3))
    for k in range(3):
        mr, mr.file_meta = Dataset(), FileMetaDataset()
        mr.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        mr.SOPClassUID, mr.SOPInstanceUID = MRImageStorage, generate_uid()
        mr.StudyInstanceUID, mr.SeriesInstanceUID, mr.FrameOfReferenceUID = study, series, frame
        mr.Manufacturer, mr.Modality, mr.SeriesNumber, mr.InstanceNumber = "Philips", "MR", 1, k + 1
        mr.PatientID, mr.PatientName, mr.ImageType = "p", "A^B", ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]
        mr.ImagePositionPatient, mr.ImageOrientationPatient = [0, 0, 2 * k], [1, 0, 0, 0, 1, 0]
        mr.PixelSpacing, mr.SliceThickness, mr.Rows, mr.Columns = [1, 1], 2, 8, 8
        mr.SamplesPerPixel, mr.PhotometricInterpretation, mr.PixelRepresentation = 1, "MONOCHROME2", 0
        mr.BitsAllocated, mr.BitsStored, mr.HighBit, mr.RescaleSlope, mr.RescaleIntercept = 16, 12, 11, 2, 0
        mr.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", scale_slope)
        mr.PixelData = np.linspace(0, 1000, 64).astype(np.uint16).tobytes()
        mr.save_as(f"{folder}/{k}.dcm", enforce_file_format=True)


data = Path(nib.__file__).parent / "tests/data"
Path("phantom").mkdir()
for suffix in (".PAR", ".REC"):
    shutil.copy((data / "phantom_EPI_asc_CLEAR_2_1").with_suffix(suffix), "phantom")
(phantom,) = Path("phantom").glob("*.PAR")
seen = {"phantom": [round(float(np.asarray(nib.load(phantom).dataobj).max()))]}
for folder, scale_slope in (("first", 0.008), ("second", 0.004)):
    write_series(folder, scale_slope)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(folder)
    seen[folder] = [round(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(names)).max())]
for folder, values in seen.items():
    values += [convert(folder, "-p", "n"), convert(folder)]
    print(f"{folder}: largest value by nibabel or SimpleITK, by dcm2niix -p n, by dcm2niix", *values)
expected = {"phantom": [2299, 2299, 415963], "first": [2000, 2000, 125000], "second": [2000, 2000, 250000]}
sys.exit(seen != expected)
PY
echo "as described"
