"""Small image files of every format that the reader knows, for the tests of reading and listing."""

import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image, TiffImagePlugin
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from dira_monai.images.reader import ScanReader
from dira_monai.utils.errors import InputError

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
SIZE = 0.48828125  # mm, which four decimals round
SIZES = (SIZE, SIZE, 5)
UNKNOWN = (
    "cannot be read: it is cut off or not of the format that its name says, or of a kind that this version of Pillow"
)
READS_SIGNED_BYTES = (b"II", 1, (2,), 1, (8,), ()) in TiffImagePlugin.OPEN_INFO  # of TIFF; Pillow 9.5 does not
SIGNED_BYTES = "holds signed numbers of 8 bits, of which Pillow makes others" if READS_SIGNED_BYTES else UNKNOWN
LPS = np.array([[-SIZE, 0, 0, 120], [0, -SIZE, 0, 100], [0, 0, 5, -50], [0, 0, 0, 1]])


def noise(*shape, seed=0, high=200):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.int16)


def write_image(path, array):
    """PNG or JPEG of (rows, columns) or (rows, columns, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


def write_nifti(path, array, spacing=(1, 2, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1])), path)
    return path


def write_place(path, sform=LPS, qform=None, codes=(1, 0), pixdim=SIZES, unit=2, shape=(4, 5, 6)):
    """A NIfTI file with these numbers in its header, whatever nibabel thinks of them; codes of sform and qform."""
    image = nib.Nifti1Image(noise(*shape), None)
    image.set_sform(sform, 1)
    if qform is not None or codes[1]:  # else its numbers are unset
        image.set_qform(sform if qform is None else qform, 1)
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    content[80:92], content[123] = struct.pack("<3f", *pixdim), unit
    content[252:256] = struct.pack("<2h", *codes[::-1])
    path.write_bytes(content)
    return path


def write_slice(path, stored, position=(0, 0, 0), orientation=AXIAL, series="1.2.3", patient="p1", number=1, **tags):
    """A CT slice with HU = stored - 1024; ``position`` None leaves the geometry out, as in an X-ray.

    A tag of the value None is left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2", series
    data.PatientID, data.Modality, data.InstanceNumber = patient, "CT", number
    if position is not None:
        data.ImagePositionPatient, data.ImageOrientationPatient = list(position), list(orientation)
    data.PixelSpacing = [0.5, 0.75]  # rows, columns
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = stored.astype("<i2").tobytes()
    for name, value in tags.items():
        delattr(data, name) if value is None else setattr(data, name, value)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, volume, depths=None, orientation=AXIAL, shift=(0, 0, 0), **options):
    """Slices ``volume[k]`` at ``depths[k]`` mm along the normal, in shuffled file names; the paths in slice order.

    ``shift`` moves the origin of each slice by so many mm for each mm of depth: a gantry tilt.
    """
    depths = np.arange(len(volume)) * 2.5 if depths is None else np.asarray(depths, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    names = np.random.default_rng(3).permutation(len(volume))
    files = []
    for stored, depth, name in zip(volume, depths, names, strict=True):
        position = np.array([-10, 20, 5]) + depth * (normal + np.array(shift))
        path = Path(folder) / f"{options.get('series', '1.2.3')}_{name:02d}.dcm"
        files.append(write_slice(path, stored, position=position.tolist(), orientation=orientation, **options))
    return files


def write_frames(path, volume, depths, orientation=AXIAL, rescale=(1, -1024), **options):
    """One enhanced CT file with the frames ``volume[k]`` at ``depths[k]`` mm along the normal, in this order."""
    write_slice(path, volume[0], position=None, **options)
    data = pydicom.dcmread(path)
    for name in ("PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(data, name)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    data.NumberOfFrames, data.PixelData = len(volume), volume.astype("<i2").tobytes()
    shared = _item(PixelMeasuresSequence=_item(PixelSpacing=[0.5, 0.75], SliceThickness=1))
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(orientation))]
    slope, intercept = rescale
    shared.PixelValueTransformationSequence = [
        _item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU"),
    ]
    data.SharedFunctionalGroupsSequence = [shared]
    normal = np.cross(orientation[:3], orientation[3:])
    positions = [(np.array([-10, 20, 5]) + depth * normal).tolist() for depth in depths]
    data.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=_item(ImagePositionPatient=position)) for position in positions
    ]
    data.save_as(path, enforce_file_format=True)
    return path


def mend(path, change):
    """Write the file again with what ``change`` makes of its data set."""
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path, enforce_file_format=True)
    return path


def bare(path, new):
    """The file moved to another name, without preamble and meta information, as old archives have them."""
    data = pydicom.Dataset()
    data.update(pydicom.dcmread(path))
    pydicom.dcmwrite(new, data, implicit_vr=True, little_endian=True)
    if new != path:
        path.unlink()
    return new


def _item(**tags):
    item = pydicom.Dataset()
    for name, value in tags.items():
        setattr(item, name, [value] if isinstance(value, pydicom.Dataset) else value)
    return item


def cut(path, part=0.6):
    """Cut the file off after so much of it."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path


def write_pictures(folder):
    """Twenty pictures, p00.png to p19.png."""
    for index in range(20):
        write_image(folder / f"p{index:02d}.png", noise(6, 8, seed=index))
    return folder


def write_flawed(folder):
    """The twenty pictures, of which p03, p05 and p07 cannot be used, and a volume."""
    write_pictures(folder)
    cut(folder / "p03.png")
    write_image(folder / "p05.png", np.zeros((6, 8)))
    write_image(folder / "p07.png", noise(6, 8, 3))
    write_nifti(folder / "volume.nii.gz", noise(4, 5, 6))
    return folder


def relative(files, folder):
    return [file.relative_to(folder).as_posix() for file in files]


def affine_of(image):
    """Affine in RAS of a SimpleITK image."""
    rank = image.GetDimension()
    affine = np.eye(4)
    affine[:rank, :rank] = np.reshape(image.GetDirection(), (rank, rank)) * image.GetSpacing()
    affine[:rank, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine  # LPS to RAS


def read(*files, resample=True):
    """Array and meta data of a file, a folder or the slices of a series, by ``ScanReader``."""
    reader = ScanReader(resample)
    return reader.get_data(reader.read(files if len(files) > 1 else files[0]))


def refuses(words, function, *args, **options):
    """The function raises the error of what a user can mend, whose sentence has these words (a pattern)."""
    with pytest.raises(InputError, match=words):
        function(*args, **options)


def close_folders(monkeypatch, name):
    """Have the system refuse to list folders of a name, as it does not to root."""
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
