"""What stock MONAI reads otherwise is refused while a list is made; the rest is read the same."""

import time

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from monai.data import ITKReader, PILReader
from monai.transforms import LoadImage
from PIL import Image
from scan_files import mend, noise, write_image, write_nifti, write_series

from dira_monai import ScanReader
from dira_monai.images.find import find_images
from dira_monai.images.stock import OUR_READER, load_itk, name_reader, read_as_trained
from dira_monai.utils.errors import InputError
from dira_monai.utils.parallel import parallel_map

CURE = r"; give --reader dira_monai\.ScanReader, or convert the image\.$"


def write_rgb(folder):
    colors = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colors["R"] = noise(4, 5, 6)
    nib.save(nib.Nifti1Image(colors, np.eye(4)), folder / "rgb.nii")


def write_pet(folder):
    for file, slope in zip(write_series(folder / "pet", noise(4, 5, 6)), (1, 0.25, 1, 1), strict=True):
        mend(file, lambda data, slope=slope: setattr(data, "RescaleSlope", slope))


def write_two_thicknesses(folder):
    """Slices at even places, of which MONAI makes two series."""
    for index, file in enumerate(write_series(folder / "ct", noise(6, 5, 6))):
        mend(file, lambda data, index=index: setattr(data, "SliceThickness", 2 + index // 3))


def write_palette(folder):
    image = Image.fromarray(noise(6, 8).astype(np.uint8)).convert("RGB").quantize(16)
    image.save(folder / "palette.png")


@pytest.mark.parametrize(
    ("write", "reader", "words"),
    [
        (
            lambda folder: write_nifti(folder / "a.nii", noise(4, 5, 6, 1, 1)),
            None,
            "is 1 x 4 x 5 x 6 .*, and stock MONAI",
        ),
        (lambda folder: write_nifti(folder / "a.nii", noise(8, 6, 1)), None, r"reads 1 x 8 x 6 x 1"),
        (write_rgb, None, r"rgb\.nii cannot be read by stock MONAI"),
        (write_pet, None, "holds other values than stock MONAI reads, by up to 0.75"),
        (write_two_thicknesses, None, "is 1 x 6 x 5 x 6 .*, and stock MONAI reads 1 x 6 x 5 x 3"),
        (write_palette, None, "holds other values than stock MONAI reads"),  # numbers of the colors
    ],
)
def test_what_stock_monai_reads_otherwise_is_refused(tmp_path, write, reader, words):
    write(tmp_path)
    (image,) = find_images(tmp_path)
    with pytest.raises(InputError, match=words + ".*" + CURE):
        read_as_trained(image, tmp_path, reader)
    array, _ = read_as_trained(image, tmp_path, OUR_READER)
    assert array.size > 0


def write_kinds(folder):
    write_nifti(folder / "volume.nii.gz", noise(4, 5, 6))
    write_nifti(folder / "channels.nii", noise(4, 5, 6, 2))
    write_nifti(folder / "slice.nii", noise(4, 5))
    write_image(folder / "gray.png", noise(6, 8))
    write_image(folder / "color.png", noise(6, 8, 3))
    write_image(folder / "equal.png", noise(6, 8, 1).repeat(3, 2))
    Image.fromarray(noise(6, 8, high=30000).astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(noise(6, 8) > 100).save(folder / "bits.png")
    write_palette(folder)
    write_series(folder / "even", noise(4, 5, 6))
    write_series(folder / "tilted", noise(4, 5, 6), shift=(0, -0.25, 0))


def test_the_rest_is_read_the_same(tmp_path):
    write_kinds(tmp_path)
    images = find_images(tmp_path)
    assert len(images) == 11
    for image in images:
        array, meta = read_as_trained(image, tmp_path, "PILReader")
        assert array.shape[: len(meta["spatial_shape"])] == tuple(meta["spatial_shape"])


def test_readers_have_the_names_that_a_configuration_has():
    assert [name_reader(reader) for reader in (None, "ITKReader", OUR_READER)] == [None, "ITKReader", OUR_READER]
    assert name_reader(PILReader(converter=lambda image: image)) == "PILReader"
    assert name_reader(ScanReader()) == OUR_READER
    assert name_reader(ScanReader(resample=False)) == "dira_monai.images.reader.ScanReader"


def test_itk_is_loaded_by_the_first_file_that_it_reads(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(ITKReader, "read", lambda self, file: read.append(file))
    load_itk(["a.nii.gz", "b.PNG"])
    assert read == []
    load_itk(["a.nii.gz", "b.nrrd", "c.mha"])
    load_itk([str(tmp_path)])
    assert read == ["b.nrrd", str(tmp_path)]


def test_one_thread_at_a_time_reads_by_itk(tmp_path, monkeypatch):
    """Else the working folder may stay that of itk's package."""
    inside, most = [], []

    class Slow(LoadImage):
        def __call__(self, path):
            inside.append(path)
            time.sleep(0.02)
            most.append(len(inside))
            found = super().__call__(path)
            inside.remove(path)
            return found

    monkeypatch.setattr("monai.transforms.LoadImage", Slow)
    for index in range(4):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noise(3, 4, 5)), str(tmp_path / f"{index}.nrrd"))
    list(parallel_map(lambda index: read_as_trained(f"{index}.nrrd", tmp_path, None), range(4), "reading", 4))
    assert most == [1] * 4
