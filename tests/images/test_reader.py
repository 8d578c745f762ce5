import bz2
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from monai.transforms import EnsureChannelFirst, LoadImage
from PIL import ExifTags, Image
from scan_files import SIGNED_BYTES, affine_of, cut, noise, read, refuses, write_image, write_nifti, write_slice

from dira_monai.images.reader import ScanReader
from dira_monai.images.stock import read_as_trained
from dira_monai.utils.errors import InputError, find_input_error
from dira_monai.utils.parallel import parallel_map

load = LoadImage(reader="dira_monai.ScanReader", dtype=None)


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_itk_formats(tmp_path, suffix, compress):
    volume = noise(4, 5, 6)  # (z, y, x)
    image = SimpleITK.GetImageFromArray(volume)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((7.0, 8.0, 9.0))
    SimpleITK.WriteImage(image, str(tmp_path / f"a.{suffix}"), compress)
    loaded = load(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(loaded.numpy(), volume.T)
    np.testing.assert_allclose(loaded.affine.numpy(), affine_of(image))


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd"])
def test_pictures_of_itk_have_two_axes_and_keep_their_place(tmp_path, suffix):
    image = SimpleITK.GetImageFromArray(noise(4, 5))  # (y, x)
    image.SetSpacing((0.5, 0.75))
    image.SetOrigin((7.0, 8.0))
    image.SetDirection((0.0, 1.0, -1.0, 0.0))
    SimpleITK.WriteImage(image, str(path := tmp_path / f"a.{suffix}"))
    array, meta = read(path)
    np.testing.assert_array_equal(array, noise(4, 5).T)
    np.testing.assert_allclose(meta["affine"], np.diag([0.5, 0.75, 1, 1]))
    np.testing.assert_allclose(meta["slice_affine"], affine_of(image))


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("axes", [(), (1,), (1, 1)])
def test_nifti_drops_axes_of_length_one(tmp_path, suffix, axes):
    volume = noise(4, 5, 6)
    array, meta = read(write_nifti(tmp_path / f"a.{suffix}", volume.reshape(4, 5, 6, *axes)))
    np.testing.assert_array_equal(array, volume)
    np.testing.assert_array_equal(meta["affine"], np.diag([1, 2, 3, 1]))
    assert np.isnan(meta["original_channel_dim"])


@pytest.mark.parametrize(("shape", "expected"), [((4, 5, 6, 2), (2, 4, 5, 6)), ((4, 5, 1, 2), (2, 4, 5))])
def test_nifti_channels(tmp_path, shape, expected):
    array = noise(*shape)
    loaded = EnsureChannelFirst()(load(write_nifti(tmp_path / "a.nii.gz", array)))
    assert loaded.shape == expected
    np.testing.assert_array_equal(loaded[1].numpy(), array[..., 1].squeeze())


def test_nifti_of_too_many_axes(tmp_path):
    with pytest.raises(InputError, match=r"a\.nii has 5 axes, 4 x 5 x 6 x 2 x 3, where 4 are the most"):
        read(write_nifti(tmp_path / "a.nii", noise(4, 5, 6, 2, 3)))


def test_nifti_of_complex_numbers(tmp_path):
    with pytest.raises(InputError, match=r"a\.nii holds complex numbers"):
        read(write_nifti(tmp_path / "a.nii", noise(4, 5, 6).astype(np.complex64)))


def test_color_nifti(tmp_path):
    colors = noise(4, 5, 6, 3).astype(np.uint8)
    records = np.ascontiguousarray(colors).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    array, meta = read(write_nifti(tmp_path / "a.nii", records))
    np.testing.assert_array_equal(array, colors)
    assert meta["original_channel_dim"] == -1


@pytest.mark.parametrize("name", ["a.img", "a.mgz", "a.nii.bz2", "a.nhdr"])
def test_further_volumes_as_other_readers_read_them(tmp_path, name):
    volume, affine = noise(4, 5, 6), np.array([[0, 2, 0, 7], [-3, 0, 0, 8], [0, 0, 4, 9], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(volume, affine)
    if name == "a.img":
        nib.save(nib.Nifti1Pair(volume, affine), tmp_path / name)
    elif name == "a.mgz":
        nib.save(nib.MGHImage(volume.astype(np.int32), affine), tmp_path / name)  # big endian
    elif name == "a.nii.bz2":
        (tmp_path / name).write_bytes(bz2.compress(image.to_bytes()))
    else:
        nib.save(image, tmp_path / "a.nii")
        SimpleITK.WriteImage(SimpleITK.ReadImage(tmp_path / "a.nii"), tmp_path / name)
    loaded = load(tmp_path / name)
    np.testing.assert_array_equal(loaded.numpy(), volume)
    np.testing.assert_allclose(loaded.affine.numpy(), affine, atol=1e-6)


def test_volumes_that_stock_readers_do_not_read_alike(tmp_path):
    volume = noise(4, 5, 6)
    nib.save(nib.MGHImage(volume.astype(np.int32), np.eye(4)), tmp_path / "a.mgz")
    nib.save(nib.AnalyzeImage(volume, np.eye(4)), tmp_path / "b.img")
    array, meta = read(tmp_path / "b.img")
    np.testing.assert_array_equal(array, volume)
    assert meta["note"] == "Analyze, which tells no left from right: nibabel's order is taken"
    refuses(r"a\.mgz cannot be read by stock MONAI; give --reader", read_as_trained, "a.mgz", tmp_path, None)
    refuses(r"b\.img lies up to .* mm away from where stock MONAI has it", read_as_trained, "b.img", tmp_path, None)


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "a.bmp"])
def test_tiff_and_bmp(tmp_path, name):
    gray = noise(5, 4).astype(np.uint8)
    write_image(tmp_path / name, gray)
    np.testing.assert_array_equal(load(tmp_path / name).numpy(), gray.T)
    color = noise(5, 4, 3).astype(np.uint8)
    np.testing.assert_array_equal(load(write_image(tmp_path / name, color)).numpy(), color.transpose(1, 0, 2))


@pytest.mark.parametrize("order", "<>")
def test_16_bit_and_multi_page_tiff(tmp_path, order):
    deep = noise(5, 4).astype(np.uint16) * 300
    picture = Image.frombytes("I;16" + ("B" if order == ">" else ""), (4, 5), deep.astype(f"{order}u2").tobytes())
    picture.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(load(tmp_path / "a.tif").numpy(), deep.T)
    picture.save(tmp_path / "b.tif", save_all=True, append_images=[picture])
    refuses(r"b\.tif has 2 pages, where a picture has one", read, tmp_path / "b.tif")
    moving = [Image.fromarray(noise(5, 4, seed=seed).astype(np.uint8)) for seed in range(3)]
    moving[0].save(tmp_path / "c.png", save_all=True, append_images=moving[1:])
    refuses(r"c\.png has 3 pages, where a picture has one", read, tmp_path / "c.png")


@pytest.mark.parametrize(
    ("dtype", "words"),
    [("u1", SIGNED_BYTES), ("i4", "holds unsigned numbers of 32 bits, of which Pillow makes others")],
)
def test_numbers_of_tiff_that_pillow_changes(tmp_path, dtype, words):
    stored = noise(6, 8, high=100).astype(dtype)
    file = tmp_path / "a.tif"
    sign = {"u1": 2, "i4": 1}[dtype]  # the other one
    for value in (0, -1):
        stored[0, 0] = np.array(value).astype(dtype)
        Image.fromarray(stored).save(file, tiffinfo={339: 2})
        kind = b"\x53\x01\x03\x00\x01\x00\x00\x00"  # 339, SampleFormat, one short
        assert file.read_bytes().count(kind + b"\x02") == 1
        file.write_bytes(file.read_bytes().replace(kind + b"\x02", kind + bytes([sign])))
        if value == 0 and dtype == "i4":  # as programs write label maps
            np.testing.assert_array_equal(read(file)[0].T, stored)
    refuses(rf"a\.tif {words}", read, file)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_of_which_0_is_white(tmp_path, bits):
    stored = noise(6, 8, high=200).astype(f"<u{bits // 8}")
    Image.fromarray(stored).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    tag = b"\x06\x01\x03\x00\x01\x00\x00\x00"  # 262, PhotometricInterpretation, one short
    assert content.count(tag + b"\x01") == 1
    (tmp_path / "a.tif").write_bytes(content.replace(tag + b"\x01", tag + b"\x00"))
    array, meta = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(array.T, 255 - stored if bits == 8 else stored)
    assert meta.get("note", "") == ("0 is white, and 16 bits stay as stored" if bits == 16 else "")


def test_single_slice_is_2d_with_its_own_spacing(tmp_path):
    sagittal = np.array([[0, 0, 2, 0], [3, 0, 0, 0], [0, 4, 0, 0], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(noise(4, 5, 1), sagittal), tmp_path / "a.nii.gz")
    loaded = load(tmp_path / "a.nii.gz")
    assert loaded.shape == (4, 5)
    np.testing.assert_array_equal(loaded.affine.numpy(), np.diag([3, 4, 1, 1]))


def test_files_that_are_no_dicom_stack_as_channels(tmp_path):
    first, second = noise(4, 5, 6), noise(4, 5, 6, seed=1)
    files = [write_nifti(tmp_path / "a.nii.gz", first), write_nifti(tmp_path / "b.nii.gz", second)]
    np.testing.assert_array_equal(EnsureChannelFirst()(load(files)).numpy(), np.stack([first, second]))


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg"])
def test_gray_picture_is_what_monai_reads(tmp_path, suffix):
    path = write_image(tmp_path / f"a.{suffix}", noise(5, 7))
    loaded = load(path)
    assert loaded.shape == (7, 5)
    np.testing.assert_array_equal(loaded.numpy(), LoadImage(reader="PILReader", dtype=None)(path).numpy())


def test_16_bit_png(tmp_path):
    pixels = noise(5, 7).astype(np.uint16) * 300
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], pixels.T)


def test_color_picture_has_channels_last(tmp_path):
    pixels = noise(5, 7, 3)
    array, meta = read(write_image(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(array, pixels.swapaxes(0, 1))
    assert meta["original_channel_dim"] == -1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_equal_channels_opacity_and_palette_come_out_gray(tmp_path, mode):
    gray = noise(5, 7).astype(np.uint8)
    image = Image.fromarray(gray)
    if mode == "P":  # a palette that turns the order of the indices round
        image = Image.fromarray(255 - gray, mode="L")
        image.putpalette([255 - value for value in range(256) for _ in range(3)])
    else:
        image = image.convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], gray.T)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "L"])
@pytest.mark.parametrize("hidden", [0, 90])
def test_values_that_opacity_hides_are_taken_and_told(tmp_path, mode, hidden):
    gray, opacity = np.full((5, 7), 120, np.uint8), np.full((5, 7), 255, np.uint8)
    gray[2, 3:], opacity[2, 3:] = hidden, 0
    image, options = Image.fromarray(np.dstack([gray, opacity]), mode="LA"), {}
    if mode == "PA":  # saved as a palette with a transparent color
        image, options = Image.fromarray(gray).convert("P"), {"transparency": hidden}
    elif mode == "L":
        image, options = Image.fromarray(gray), {"transparency": hidden}
    else:
        image = image.convert(mode)
    image.save(tmp_path / "a.png", **options)
    array, meta = read(tmp_path / "a.png")
    np.testing.assert_array_equal(array, gray.T)
    assert meta.get("note") == ("transparent pixels have other values than 0, which are taken" if hidden else None)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_photograph_is_read_as_it_is_shown(tmp_path, orientation, suffix):
    gray = Image.fromarray(np.kron(np.arange(6).reshape(2, 3) * 50, np.ones((8, 8))).astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    gray.save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    expected = gray.transpose(Image.Transpose[turns[orientation]]) if orientation in turns else gray
    array, meta = read(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(array.T.astype(int), np.asarray(expected), atol=2)
    told = f"turned upright by its EXIF orientation {orientation}" if orientation in turns else None
    assert meta.get("note") == told


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_what_colors_of_16_bits_lose_is_told(tmp_path, suffix):
    colors = (noise(5, 7, 3) * 257).astype(np.uint16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(colors, isVector=True), str(path := tmp_path / f"a.{suffix}"))
    array, meta = read(path)
    np.testing.assert_array_equal(array, (colors >> 8).swapaxes(0, 1))
    assert meta["note"] == "16 bits a color become 8"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(colors[..., 0]), str(path))
    array, meta = read(path)
    np.testing.assert_array_equal(array, colors[..., 0].T)
    assert "note" not in meta


def test_inks_are_read_as_a_viewer_shows_them(tmp_path):
    gray = Image.fromarray(noise(8, 8).astype(np.uint8)).convert("RGB")
    gray.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    shown = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    np.testing.assert_array_equal(read(tmp_path / "a.jpg")[0], shown.swapaxes(0, 1)[..., 0])


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8"])
@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_vectors_are_channels(tmp_path, suffix, dtype):
    values = noise(4, 5, 6, 2).astype(dtype)  # (z, y, x, components)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values, isVector=True), str(path := tmp_path / f"a.{suffix}"))
    array, meta = read(path)
    np.testing.assert_array_equal(array, values.transpose(2, 1, 0, 3))
    assert meta["original_channel_dim"] == -1


def test_the_list_axis_of_nrrd_may_come_first_or_last(tmp_path):
    values = noise(3, 4, 5)
    lines = ["NRRD0005", "type: short", "dimension: 4", "endian: little", "encoding: raw"]
    lines += ["space: left-posterior-superior", "space origin: (1,2,3)"]
    for name, kinds, sizes, directions, raw in (
        ("first", "list domain domain domain", "2 3 4 5", "none (1,0,0) (0,1,0) (0,0,2)", np.stack([values, -values])),
        (
            "last",
            "domain domain domain list",
            "3 4 5 2",
            "(1,0,0) (0,1,0) (0,0,2) none",
            np.stack([values, -values], -1),
        ),
    ):
        head = [*lines, f"sizes: {sizes}", f"kinds: {kinds}", f"space directions: {directions}"]
        path = tmp_path / f"{name}.nrrd"
        path.write_bytes("\n".join([*head, "", ""]).encode() + raw.tobytes(order="F"))
        array, meta = read(path)
        np.testing.assert_array_equal(array, np.stack([values, -values], -1))
        np.testing.assert_array_equal(meta["affine"], [[-1, 0, 0, -1], [0, -1, 0, -2], [0, 0, 2, 3], [0, 0, 0, 1]])


def test_the_working_folder_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moves = []
    monkeypatch.setattr("os.chdir", moves.append)
    files = [make(tmp_path, name) for name in ("a.nrrd", "a.mha", "a.dcm", "a.nii", "a.png")]
    assert list(parallel_map(lambda file: read(file)[0].size, files, "reading", 4))
    assert moves == []
    assert Path.cwd() == tmp_path


def make(folder, name):
    path = folder / name
    if name.endswith((".png", ".jpg")):
        write_image(path, noise(40, 40))
    elif name.endswith((".nii", ".nii.gz")):
        write_nifti(path, noise(10, 10, 10))
    elif name.endswith(".dcm"):
        write_slice(path, noise(40, 40))
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noise(10, 10, 10)), str(path))
    return path


NAMES = ["a.png", "a.jpg", "a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.dcm"]


@pytest.mark.parametrize("name", NAMES)
def test_cut_off_file_through_load_image(tmp_path, name):
    path = cut(make(tmp_path, name))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever LoadImage wraps it in, the cause is what matters
        load(path)
    error = find_input_error(caught.value)
    assert str(error).startswith(f"{path} cannot be read: ")
    assert str(error).endswith(".")
    assert "\n" not in str(error)
    assert "0x" not in str(error)


@pytest.mark.parametrize("name", NAMES)
def test_file_of_another_kind(tmp_path, name):
    path = tmp_path / name
    path.write_text("no image at all " * 50)
    with pytest.raises(InputError, match=f"{name} cannot be read: "):
        read(path)


@pytest.mark.parametrize(("name", "cure"), [("a.gif", ""), ("a.txt", ""), ("a.hdr", "; give the .img beside it")])
def test_file_of_another_format_is_named_as_such(tmp_path, name, cure):
    path = tmp_path / name
    path.write_bytes(b"GIF89a" * 50)
    refuses(
        f"{name} cannot be read: it is no DICOM file, and its name is of no other format .* read{cure}\\.$", read, path
    )


def test_header_without_its_data(tmp_path):
    path = make(tmp_path, "a.mhd")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(
        InputError, match=r"a\.mhd cannot be read: its data are missing or shorter than its header says"
    ):
        read(path)


def test_missing_empty_and_folder(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "nothing").mkdir()
    for name, words in [
        ("none.png", "not exist"),
        ("empty.png", "is empty"),
        ("nothing", "folder with 0 DICOM series"),
    ]:
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize(("name", "package"), [("a.nrrd", "SimpleITK"), ("a.dcm", "SimpleITK")])
def test_missing_package(tmp_path, monkeypatch, name, package):
    path = make(tmp_path, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"{name} needs the package {package}: pip install {package}$"):
        read(path)


WITHOUT_PACKAGES = """
import sys
for name in ("SimpleITK", "itk", "pydicom"):
    sys.modules[name] = None
from dira_monai.images.facts import measure_image
from dira_monai.images.find import find_images
folder = sys.argv[1]
assert find_images(folder) == ["a/one.nii.gz", "b/two.png"]
print(*(measure_image(name, folder)["shape"] for name in ("a/one.nii.gz", "b/two.png")))
"""


def test_works_without_optional_packages(tmp_path):
    write_nifti(tmp_path / "a" / "one.nii.gz", noise(4, 5, 6))
    write_image(tmp_path / "b" / "two.png", noise(5, 7))
    command = [sys.executable, "-c", WITHOUT_PACKAGES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[4, 5, 6] [7, 5]\n", 0), done.stderr


def test_verify_suffix():
    assert ScanReader().verify_suffix(["a.dcm", "IM0001"])
    assert ScanReader().verify_suffix("a.NII.GZ")
    assert not ScanReader().verify_suffix("a.npy")
