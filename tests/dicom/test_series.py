import base64
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from monai.data import ITKReader
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    HTJ2KLossless,
    JPEGLosslessSV1,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)
from scan_files import (
    AXIAL,
    SAGITTAL,
    affine_of,
    cut,
    mend,
    noise,
    read,
    refuses,
    write_frames,
    write_series,
    write_slice,
)

from dira_monai.dicom.headers import group_series
from dira_monai.images.find import find_images, read_image
from dira_monai.images.stock import read_as_trained
from dira_monai.utils.errors import InputError

load = LoadImage(reader="dira_monai.ScanReader", dtype=None)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, (0.8, 0.6, 0, -0.6, 0.8, 0)])
def test_dicom_series_is_what_itk_reads_from_the_folder(tmp_path, orientation):
    files = write_series(tmp_path, noise(6, 4, 5), orientation=orientation)
    to_ras = Compose([EnsureChannelFirst(), Orientation("RAS", labels=None)])
    loaded = to_ras(load(files[::-1]))
    expected = to_ras(LoadImage(reader=ITKReader, dtype=None)(tmp_path))
    np.testing.assert_array_equal(loaded.numpy(), expected.numpy())
    np.testing.assert_allclose(loaded.affine.numpy(), expected.affine.numpy(), atol=1e-6)


def test_dicom_series_in_slice_order_and_hu(tmp_path):
    volume = noise(6, 4, 5)
    files = write_series(tmp_path, volume)
    array, meta = read(*[files[i] for i in (3, 0, 5, 1, 4, 2)])
    np.testing.assert_array_equal(array, volume.T - 1024)
    expected = np.diag([-0.75, -0.5, 2.5, 1])
    expected[:3, 3] = [10, -20, 5]
    np.testing.assert_allclose(meta["affine"], expected)
    assert "note" not in meta


def ramp(points):
    """A smooth image of places in mm (RAS), linear, so that linear interpolation is exact."""
    return 3 * points[..., 0] + 2 * points[..., 1] + 5 * points[..., 2]


def write_ramp(folder, depths, shift=(0, 0, 0), orientation=AXIAL, size=(12, 10)):
    """Slices whose stored numbers are the ramp at their pixels, times 100."""
    normal = np.cross(orientation[:3], orientation[3:])
    axes = np.reshape(orientation, (2, 3)) * [[0.75], [0.5]]
    rows, columns = np.mgrid[: size[0], : size[1]]
    volume = []
    for depth in depths:
        origin = np.array([-10, 20, 5]) + depth * (normal + np.array(shift))
        places = origin + columns[..., None] * axes[0] + rows[..., None] * axes[1]
        volume.append(100 * ramp(places * [-1, -1, 1]))
    tags = {"RescaleIntercept": 0, "RescaleSlope": 0.01}
    return write_series(folder, np.array(volume), depths=depths, shift=shift, orientation=orientation, **tags)


def check_ramp(array, meta, margin):
    """Every voxel whose neighbors are slices holds the ramp at its own place."""
    places = np.moveaxis(np.indices(array.shape), 0, -1) @ meta["affine"][:3, :3].T + meta["affine"][:3, 3]
    inside = tuple(slice(low, length - high) for length, (low, high) in zip(array.shape, margin, strict=True))
    np.testing.assert_allclose(array[inside], ramp(places)[inside], atol=0.02)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, (0.8, 0.6, 0, -0.6, 0.8, 0)])
def test_uneven_slices_are_resampled_in_place(tmp_path, orientation):
    array, meta = read(*write_ramp(tmp_path, [0, 2, 4, 6, 9, 12], orientation=orientation))
    assert meta["note"] == "uneven slice gaps 2 to 3 mm, resampled to 2 mm"
    assert array.shape == (10, 12, 7)
    check_ramp(array, meta, [(0, 0)] * 3)


def test_small_differences_of_gaps_stay(tmp_path):
    volume = noise(5, 4, 5)
    array, meta = read(*write_series(tmp_path, volume, depths=[0, 2, 4.1, 6, 8]))
    np.testing.assert_array_equal(array, volume.T - 1024)
    assert "note" not in meta


def test_tilted_slices_are_straightened_in_place(tmp_path):
    files = write_ramp(tmp_path, [0, 2, 4, 6], shift=(0, -0.25, 0))  # 1.5 mm = 3 rows over the depth, to lower rows
    array, meta = read(*files)
    assert meta["note"] == "slices sheared by 14 degrees (gantry tilt), straightened"
    assert array.shape == (10, 15, 4)
    check_ramp(array, meta, [(0, 0), (3, 3), (0, 0)])
    assert array[0, 0, 0] == array.min()  # no slice reached it
    np.testing.assert_allclose(meta["affine"][:3, :3], np.diag([-0.75, -0.5, 2]), atol=1e-9)


def test_tilt_kept_for_stock_monai(tmp_path):
    files = write_ramp(tmp_path, [0, 2, 4, 6], shift=(0, -0.25, 0))
    array, meta = read(*files, resample=False)
    assert meta["note"] == "slices sheared by 14 degrees (gantry tilt)"
    np.testing.assert_allclose(array, LoadImage(reader=ITKReader, dtype=None)(tmp_path).numpy())
    check_ramp(array, meta, [(0, 0)] * 3)


@pytest.mark.parametrize("depths", [[0, 1, 2, 9, 10], [0, 5, 10, 20], [0, 10, 15, 20]])
def test_missing_slices_are_refused(tmp_path, depths):
    files = write_series(tmp_path, noise(len(depths), 4, 5), depths=depths)
    gaps = sorted(set(np.diff(depths)))
    with pytest.raises(InputError, match=f"a gap of {gaps[-1]} mm beside gaps of {gaps[0]} mm, where slices are mis"):
        read(*files)


def test_two_thicknesses_are_no_missing_slices(tmp_path):
    files = write_ramp(tmp_path, [0, 2, 4, 6, 10, 14, 18])
    array, meta = read(*files)
    assert meta["note"] == "uneven slice gaps 2 to 4 mm, resampled to 3 mm"
    check_ramp(array, meta, [(0, 0)] * 3)


def test_uneven_slices_are_refused_where_stock_monai_trains(tmp_path):
    files = write_series(tmp_path, noise(4, 4, 5), depths=[0, 2, 4, 7])
    with pytest.raises(InputError, match=r"uneven slice gaps of 2 to 3 mm, which stock MONAI would read as even ones"):
        read(*files, resample=False)


def test_uneven_gaps_print_no_warning(tmp_path, capfd):
    files = write_series(tmp_path, noise(4, 4, 5), depths=[0, 2, 4, 7])
    assert read(*files)[1]["affine"][2, 2] == pytest.approx(7 / 4)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("modality", "kind"),
    [("CR", ComputedRadiographyImageStorage), ("DX", DigitalXRayImageStorageForPresentation)],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_xray_is_2d_and_bright_where_dense(tmp_path, modality, kind, photometric):
    pixels = noise(4, 5)
    options = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0, "Modality": modality}
    options |= {"SOPClassUID": kind, "PhotometricInterpretation": photometric, "ImagerPixelSpacing": [0.2, 0.3]}
    path = write_slice(tmp_path / "a", pixels, position=None, PixelSpacing=None, **options)
    array, meta = read(path)
    bright = photometric == "MONOCHROME2"  # in the other kind low values are bright
    np.testing.assert_array_equal(array, pixels.T if bright else 4095 - pixels.T)
    np.testing.assert_allclose(meta["affine"], np.diag([0.3, 0.2, 1, 1]))  # columns, rows


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "RF", "XA", "OT"])
@pytest.mark.parametrize("detector", [None, [0.4, 0.2]])
def test_xray_spacing_is_that_of_the_calibration(tmp_path, modality, detector):
    kinds = {
        "CR": ComputedRadiographyImageStorage,
        "DX": DigitalXRayImageStorageForPresentation,
        "MG": DigitalMammographyXRayImageStorageForPresentation,
        "RF": XRayRadiofluoroscopicImageStorage,
        "XA": XRayAngiographicImageStorage,
        "OT": SecondaryCaptureImageStorage,
    }
    options = {"Modality": modality, "PixelSpacing": [0.3, 0.1]} | (
        {"ImagerPixelSpacing": detector} if detector else {}
    )
    path = write_slice(tmp_path / "a", noise(4, 5), position=None, **options)

    def of_kind(data):
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kinds[modality]

    np.testing.assert_allclose(read(mend(path, of_kind))[1]["affine"], np.diag([0.1, 0.3, 1, 1]))  # columns, rows
    stock = LoadImage(reader=ITKReader)(path).affine
    np.testing.assert_allclose(abs(read(path, resample=False)[1]["affine"]), np.abs(stock))  # what trains


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("SliceThickness", ["2.5", "2.5", "2.50001"]),
        ("SeriesDate", ["20200101", "20200102", "20200102"]),
        ("SequenceName", ["a", "a", "b"]),
        ("SeriesNumber", [1, 1, 2]),
        ("StudyDate", ["20200101", "20200102", "20200102"]),
    ],
)
def test_a_series_that_stock_monai_takes_for_several_is_refused_for_it(tmp_path, name, values):
    files = write_series(tmp_path, noise(3, 4, 5))
    for file, value in zip(files, values, strict=True):
        mend(file, lambda data, value=value: setattr(data, name, value))
    assert read(tmp_path)[0].shape == (5, 4, 3)
    stock = LoadImage(reader=ITKReader)(tmp_path).shape
    image = [file.name for file in files]
    if name == "StudyDate":
        assert read_as_trained(image, tmp_path, None)[0].shape == stock == (5, 4, 3)
        return
    assert stock != (5, 4, 3)
    refuses("is 1 x 5 x 4 x 3 .channels first., and stock MONAI reads", read_as_trained, image, tmp_path, None)


def test_a_mosaic_is_refused_by_name(tmp_path):
    path = write_slice(tmp_path / "a", noise(4, 5), ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    refuses("is a mosaic, a volume as slices side by side in one picture; unpack it by dcm2niix", read, path)


@pytest.mark.parametrize("step", [2.5, -2.5])
@pytest.mark.parametrize("resample", [False, True])
def test_slices_of_nuclear_medicine_may_fall(tmp_path, step, resample):
    volume, first = noise(6, 4, 5), [-10, 20, 5]
    tags = {"Modality": "NM", "SOPClassUID": NuclearMedicineImageStorage, "SpacingBetweenSlices": step}
    place = Dataset()
    place.ImagePositionPatient, place.ImageOrientationPatient = first, list(AXIAL)
    tags["DetectorInformationSequence"] = [place]
    path = write_slice(tmp_path / "a.dcm", volume[0], position=None, NumberOfSlices=6, **tags)
    mend(path, lambda data: data.update({"NumberOfFrames": len(volume), "PixelData": volume.tobytes()}))
    array, meta = read(path, resample=resample)
    np.testing.assert_array_equal(array, volume.T - 1024)
    last = meta["affine"] @ [0, 0, 5, 1]  # frame k lies k steps along the normal, z, in LPS
    np.testing.assert_allclose(last, [-first[0], -first[1], first[2] + 5 * step, 1])


@pytest.mark.parametrize(
    ("regions", "spacing", "size", "note"),
    [
        ([(0.02, 0.03, 3)], None, (0.2, 0.3), None),
        ([(0.02, 0.03, 3), (0.02, -0.03, 3), (0.5, 0.5, 4)], None, (0.2, 0.3), None),  # one of seconds
        ([(0.02, 0.03, 3), (0.01, 0.01, 3)], None, (1, 1), "no pixel spacing, taken as 1 mm"),
        ([], None, (1, 1), "no pixel spacing, taken as 1 mm"),
        ([(0.02, 0.03, 3)], [0.5, 0.25], (0.25, 0.5), None),
    ],
)
def test_pixels_of_ultrasound_are_as_large_as_its_regions_say(tmp_path, regions, spacing, size, note):
    path = write_slice(tmp_path / "a", noise(4, 5), position=None, Modality="US", PixelSpacing=spacing)

    def calibrate(data):
        data.SequenceOfUltrasoundRegions = [Dataset() for _ in regions]
        for item, (x, y, unit) in zip(data.SequenceOfUltrasoundRegions, regions, strict=True):
            item.PhysicalDeltaX, item.PhysicalDeltaY = x, y
            item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit

    _, meta = read(mend(path, calibrate))
    np.testing.assert_allclose(meta["affine"], np.diag([*size, 1, 1]))
    assert meta.get("note") == note
    stock, told = LoadImage(reader=ITKReader)(path).affine, read(path, resample=False)[1]
    np.testing.assert_allclose(abs(told["affine"]), np.abs(stock))
    words = ", its ultrasound regions have 0.2 x 0.3 mm" if note is None else ""
    assert told.get("note") == (None if spacing else f"no pixel spacing, taken as 1 mm{words}")


def test_slices_with_and_without_rescaling_are_no_volume(tmp_path):
    files = write_series(tmp_path, noise(3, 4, 5))
    mend(files[1], lambda data: [delattr(data, name) for name in ("RescaleSlope", "RescaleIntercept")])
    with pytest.raises(InputError, match=f"{files[1].name} has no rescale slope and intercept where other slices"):
        read(tmp_path)


def test_signed_12_bits_of_monochrome1_are_refused_by_name(tmp_path):
    options = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    path = write_slice(tmp_path / "a", noise(4, 5), **options)
    with pytest.raises(InputError, match="its MONOCHROME1 pixels are signed and of 12 bits, which SimpleITK does not"):
        read(path)


@pytest.mark.parametrize("slices", [1, 4])
def test_pixels_whose_highest_bit_is_another_are_refused(tmp_path, slices):
    stored = noise(slices, 5, 6, high=4096)
    tags = {"BitsStored": 12, "PixelRepresentation": 0, "RescaleIntercept": 0}
    write_series(tmp_path / "high", stored << 4, HighBit=15, **tags)
    refuses("would be misread: its 12 bits end at bit 15 .* up to bit 11; .* by dcmtk", read, tmp_path / "high")
    write_series(tmp_path / "overlay", stored | 5 << 12, HighBit=11, **tags)  # bits above are not the pixel's
    array, _ = read(tmp_path / "overlay")
    np.testing.assert_array_equal(array.reshape(6, 5, slices), stored.transpose(2, 1, 0))


def test_colors_of_16_bits_in_rle_are_refused_and_the_same_without_it_are_read(tmp_path):
    packed = get_testdata_file("SC_rgb_rle_16bit.dcm")
    refuses("its colors of 16 bits are compressed by RLE, whose bytes SimpleITK mixes up", read, Path(packed))
    data = dcmread(packed)
    expected = data.pixel_array
    data.decompress()
    data.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read(tmp_path / "plain.dcm")[0], expected.transpose(1, 0, 2))


@pytest.mark.parametrize("missing", [1, 40, 45, 52, 90, 150])
def test_a_slice_that_is_cut_anywhere_is_named(tmp_path, missing):
    last = write_series(tmp_path, noise(4, 4, 5))[-1]
    last.write_bytes(last.read_bytes()[:-missing])
    with pytest.raises(InputError, match=f"{last.name} cannot be read: it is cut off or no DICOM image"):
        read(tmp_path)


def test_two_patients_under_one_uid_are_two_volumes(tmp_path):
    volumes = [noise(3, 4, 5, seed=index) for index in range(2)]
    for index, volume in enumerate(volumes):
        files = write_series(tmp_path / str(index), volume, depths=[index, 2 + index, 4 + index], patient=f"p{index}")
        for file in files:
            file.rename(tmp_path / f"{index}_{file.name}")
    with pytest.raises(InputError, match="2 DICOM series where one is needed"):
        read(tmp_path)
    for found, volume in zip(group_series(tmp_path.glob("*.dcm")), volumes, strict=True):
        np.testing.assert_array_equal(read(*found)[0], volume.T - 1024)


def test_each_slice_is_rescaled_by_its_own_numbers(tmp_path):
    pixels, kind = noise(4, 5), PositronEmissionTomographyImageStorage
    slopes = [1, 0.5, 0.25]
    files = [
        write_slice(tmp_path / f"{k}", pixels, (0, 0, k), SOPClassUID=kind, RescaleSlope=slope, RescaleIntercept=k)
        for k, slope in enumerate(slopes)
    ]
    expected = np.stack([pixels.T * slope + k for k, slope in enumerate(slopes)], axis=2)
    np.testing.assert_array_equal(read(*files)[0], expected)


def test_film_keeps_its_order(tmp_path):
    volume = noise(6, 4, 5)
    tags = {"Modality": "XA", "SOPClassUID": XRayAngiographicImageStorage, "ImagerPixelSpacing": [0.2, 0.3]}
    path = write_slice(tmp_path / "a.dcm", volume[0], position=None, PixelSpacing=None, **tags)
    mend(path, lambda data: data.update({"NumberOfFrames": len(volume), "PixelData": volume.tobytes()}))
    array, meta = read(path)
    np.testing.assert_array_equal(array, volume.T - 1024)
    np.testing.assert_allclose(abs(np.diag(meta["affine"])), [0.3, 0.2, 1, 1])
    assert meta["note"] == "frames without positions, in the order of the file"


@pytest.mark.parametrize("depths", [[0, 2, 4, 6], [6, 4, 2, 0], [4, 0, 6, 2]])
@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL])
def test_frames_are_sorted_by_position(tmp_path, depths, orientation):
    volume = noise(4, 4, 5)
    array, meta = read(write_frames(tmp_path / "a.dcm", volume, depths, orientation))
    np.testing.assert_array_equal(array, volume[np.argsort(depths)].T - 1024)
    same = read(*write_series(tmp_path / "series", volume, depths=sorted(depths), orientation=orientation))[1]
    np.testing.assert_allclose(meta["affine"], same["affine"], atol=1e-6)


@pytest.mark.parametrize("depths", [[0, 2, 4, 6], [6, 4, 2, 0], [4, 0, 6, 2]])
def test_frames_for_stock_monai_are_those_it_reads(tmp_path, depths):
    path = write_frames(tmp_path / "a.dcm", noise(4, 4, 5), depths, (0, 0.6, 0.8, 1, 0, 0))
    if depths[0] == 4:
        with pytest.raises(InputError, match=r"a\.dcm holds frames in another order than they lie in space"):
            read(path, resample=False)
        return
    array, meta = read(path, resample=False)
    stock = LoadImage(reader=ITKReader)(path)
    np.testing.assert_array_equal(array, stock.numpy())
    np.testing.assert_allclose(meta["affine"], stock.affine, atol=1e-6)


def test_uneven_frames_are_resampled(tmp_path):
    volume = noise(3, 4, 5)[[0, 1, 2, 2]]
    array, meta = read(write_frames(tmp_path / "a.dcm", volume, [0, 2, 4, 7]))
    assert meta["note"] == "uneven slice gaps 2 to 3 mm, resampled to 1.75 mm"
    np.testing.assert_array_equal(array[..., [0, 3, 4]], volume[[0, 2, 3]].T - 1024)  # at 0, 5.25 and 7 mm


@pytest.mark.parametrize(
    ("depths", "words"),
    [([0, 0, 2, 2], "several slices lie at one position"), ([0, 2, 4, 9], "a gap of 5 mm beside gaps of 2 mm")],
)
def test_frames_that_make_no_volume(tmp_path, depths, words):
    with pytest.raises(InputError, match=rf"a\.dcm: {words}"):
        read(write_frames(tmp_path / "a.dcm", noise(4, 4, 5), depths))


def test_one_series_of_a_folder_with_other_files(tmp_path):
    volume = noise(3, 4, 5)
    write_series(tmp_path, volume)
    (tmp_path / "notes.txt").write_text("no image")
    write_slice(tmp_path / "seg.dcm", noise(4, 5), position=None, series="9", Modality="SEG")
    np.testing.assert_array_equal(read(tmp_path)[0], volume.T - 1024)
    write_series(tmp_path, volume, series="1.2.4")
    with pytest.raises(InputError, match="is a folder with 2 DICOM series where one is needed"):
        read(tmp_path)


def test_segmentation_is_no_image(tmp_path):
    path = write_slice(tmp_path / "seg.dcm", noise(4, 5), position=None, Modality="SEG")
    for image in (path, tmp_path):
        refuses(r"seg\.dcm is a DICOM segmentation and no image; dira-monai merge-masks makes a label map", read, image)


# 8 x 8 pixels, np.random.default_rng(0).integers(0, 200, (8, 8)), by OpenJPH 0.26
HTJ2K_STREAM = base64.b64decode(
    "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQ"
    "kJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAJwAAf+TwAAlJwUHdAAAAMAAEsAAEsAAEoDjAAd0ANMAh3QA1gCHdADAABNA"
    "ABUQAAVATvsAItQAFgPG8wCCtABKEAblAEGUAMAALWgABasAALVAhmXDnmF9CGxAdQHovXD8AgpDEJm3AAcHuqD0kmUhTxZYRUcKKliAAEM3ALIA"
    "OsNZ6eb7IQUFVLMWxQNQwJeWAP/Z"
)


def compressed(path, syntax, stream):
    write_slice(path, noise(8, 8), RescaleIntercept=0, PixelRepresentation=0)
    data = dcmread(path)
    data.PixelData = encapsulate([stream])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)
    return path


def test_high_throughput_jpeg_2000(tmp_path):
    path = compressed(tmp_path / "a.dcm", HTJ2KLossless, HTJ2K_STREAM)
    np.testing.assert_array_equal(read(path)[0], noise(8, 8).T)


@pytest.mark.parametrize(("ending", "name"), [(b"102", "MPEG-4"), (b"110", "1.2.840.10008.1.2.4.110|JPEG XL")])
def test_compression_that_cannot_be_decoded_is_named(tmp_path, ending, name):
    path = compressed(tmp_path / "a.dcm", MPEG4HP41, b"no pixels. ")
    uid = MPEG4HP41.encode()
    path.write_bytes(
        path.read_bytes().replace(uid, uid[:-3] + ending)
    )  # pydicom writes no syntax that it does not know
    words = rf"a\.dcm cannot be read: its pixels are compressed as ({name}).*, where SimpleITK decodes JPEG, JPEG-LS, "
    with pytest.raises(InputError, match=words):
        read(path)


@pytest.mark.parametrize("direction", [(1, 1, 1), (-1, -1, 1)])
def test_luna16_layout(tmp_path, direction):
    volume = noise(4, 5, 6) - 1024
    volume[2, 3, 4] = 3000  # a nodule
    image = SimpleITK.GetImageFromArray(volume)
    image.SetSpacing((0.7, 0.7, 2.5))
    image.SetOrigin((-195.0, -190.0, -300.0))
    image.SetDirection(np.diag(direction).ravel().astype(float))
    name = "1.3.6.1.4.1.14519.5.2.1.6279.6001.105756658031515062000744821260"
    (tmp_path / "subset0").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "subset0" / f"{name}.mhd"))
    assert sorted(file.suffix for file in (tmp_path / "subset0").iterdir()) == [".mhd", ".raw"]
    assert find_images(tmp_path) == [f"subset0/{name}.mhd"]  # the raw file belongs to it
    array, meta = read_image(f"subset0/{name}.mhd", tmp_path)
    np.testing.assert_array_equal(array, volume.T)
    np.testing.assert_allclose(meta["affine"], affine_of(image), atol=1e-6)
    x, y, z = image.TransformIndexToPhysicalPoint((4, 3, 2))  # coordX, coordY, coordZ of annotations.csv
    voxel = np.linalg.inv(meta["affine"]) @ [-x, -y, z, 1]  # as docs/dicom.md has it
    np.testing.assert_allclose(voxel, [4, 3, 2, 1], atol=1e-6)
    assert array[4, 3, 2] == 3000


def test_broken_slice_is_named(tmp_path):
    files = write_series(tmp_path, noise(4, 40, 40))
    cut(files[2], 0.9)
    with pytest.raises(InputError, match=f"{files[2].name} cannot be read: it is cut off"):
        read(*files)


def test_slice_that_cannot_be_decoded_is_named(tmp_path):
    files = write_series(tmp_path, noise(4, 40, 40))
    data = dcmread(files[1])
    data.PixelData = encapsulate([b"no jpeg at all. " * 20])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.save_as(files[1], enforce_file_format=True)
    with pytest.raises(InputError, match=f"{files[1].name} cannot be read: .* its pixels cannot be decoded"):
        read(*files)


def test_slices_of_different_sizes(tmp_path):
    small = write_slice(tmp_path / "a.dcm", noise(4, 5))
    large = write_slice(tmp_path / "b.dcm", noise(4, 6), position=(0, 0, 1))
    with pytest.raises(InputError, match=r"a\.dcm cannot be read: .*[Ss]ize"):
        read(small, large)


def test_slices_of_different_number_types(tmp_path):
    pixels = noise(4, 5) - 100
    tags = {"RescaleSlope": None, "RescaleIntercept": None}
    first = write_slice(tmp_path / "a", abs(pixels), **tags, PixelRepresentation=0)
    second = write_slice(tmp_path / "b", pixels, (0, 0, 1), **tags)
    np.testing.assert_array_equal(read(first, second)[0], np.stack([abs(pixels).T, pixels.T], axis=2))


def test_modality_table_is_not_passed_over_in_silence(tmp_path):
    path = write_slice(tmp_path / "a", noise(4, 5), position=None, RescaleSlope=None, RescaleIntercept=None)
    assert "note" not in read(path)[1]
    table = Dataset()
    table.ModalityLUTType = "US"
    mend(path, lambda data: setattr(data, "ModalityLUTSequence", Sequence([table])))
    assert read(path)[1]["note"] == "stored values, ModalityLUTSequence not applied"


def test_frames_of_different_pixel_spacing(tmp_path):
    path = write_frames(tmp_path / "a.dcm", noise(3, 4, 5), [0, 1, 2])

    def change(data):
        del data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        for size, frame in enumerate(data.PerFrameFunctionalGroupsSequence, 1):
            frame.PixelMeasuresSequence = [Dataset()]
            frame.PixelMeasuresSequence[0].PixelSpacing = [size, 1]

    with pytest.raises(
        InputError, match=r"a\.dcm holds frames of different PixelSpacing: \[1.0, 1.0\], \[2.0, 1.0\], \[3.0, "
    ):
        read(mend(path, change))


def test_frame_without_position_beside_others(tmp_path):
    path = write_frames(tmp_path / "a.dcm", noise(3, 4, 5), [0, 1, 2])
    mend(path, lambda data: delattr(data.PerFrameFunctionalGroupsSequence[1], "PlanePositionSequence"))
    with pytest.raises(InputError, match=r"a\.dcm holds frames without position, orientation or pixel spacing beside"):
        read(path)
