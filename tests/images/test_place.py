"""Where NIfTI files lie: as nibabel and SimpleITK, which read them here too, have it."""

import re
from itertools import product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from monai.data import NibabelReader
from scan_files import LPS, SIZE, affine_of, noise, read, refuses, write_place

from dira_monai.images.facts import find_distance
from dira_monai.images.place import copy_place, set_affine
from dira_monai.images.stock import read_as_trained

RAS = np.diag([SIZE, SIZE, 5, 1])
SHEARED = np.array([[-SIZE, 0.1, 0, 120], [0, -SIZE, 0, 100], [0, 0, 5, -50], [0, 0, 0, 1]])
OBLIQUE = np.array([[0, 0, -5, 7], [-0.8 * SIZE, 0.6 * SIZE, 0, 8], [0.6 * SIZE, 0.8 * SIZE, 0, 9], [0, 0, 0, 1]])


CASES = {  # what is written, a word of the note
    "exact": ({}, ""),
    "rounded": ({"sform": LPS.round(4)}, ""),
    "rounded, qform": ({"sform": LPS.round(4), "codes": (1, 1)}, ""),
    "oblique": ({"sform": OBLIQUE, "codes": (2, 2)}, ""),
    "qform": ({"qform": RAS, "codes": (0, 1)}, ""),
    "no codes": ({"codes": (0, 0)}, "neither sform nor qform"),
    "no codes, no sizes": ({"codes": (0, 0), "pixdim": (0, 0, 0)}, "neither sform nor qform"),
    "other sizes": ({"pixdim": (1, 1, 1)}, "pixdim 1 x 1 x 1 is not the size"),
    "zero": ({"pixdim": (0, SIZE, 5)}, "pixdim 0 x"),
    "negative": ({"pixdim": (-SIZE, SIZE, 5)}, "pixdim -0.488"),
    "sheared": ({"sform": SHEARED, "codes": (1, 1), "pixdim": np.linalg.norm(SHEARED[:3, :3], axis=0)}, "sheared by"),
    "micrometers": ({"unit": 3}, "micrometers"),
    "meters, seconds": ({"unit": 1 + 8}, "meters"),
    "seconds": ({"unit": 2 + 8}, ""),
    "4D": ({"shape": (4, 5, 6, 2)}, ""),
    "2D": ({"shape": (4, 5), "sform": np.diag([-SIZE, SIZE, 5, 1])}, ""),
}
CASES |= {
    f"sform {sform}, qform {qform}": ({"qform": RAS, "codes": (sform, qform)}, "qform differs" if sform > 1 else "")
    for sform, qform in product((1, 2, 3, 4), (1, 2))
}


@pytest.mark.parametrize("name", CASES)
def test_place_is_that_of_nibabel_in_mm_and_a_note_tells_where_itk_differs(tmp_path, name):
    options, words = CASES[name]
    path = write_place(tmp_path / "a.nii", **options)
    unit = {1: 1000, 3: 0.001}.get(options.get("unit", 2) % 8, 1)
    expected = np.diag([unit, unit, unit, 1]) @ nib.load(path).affine
    array, meta = read(path)
    rank = len(meta["spatial_shape"])
    if rank == 3:
        np.testing.assert_allclose(meta["affine"], expected)
    note = meta.get("note", "")
    assert words in note
    assert bool(note) == bool(words)
    by_itk = affine_of(SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)) if array.ndim < 4 else expected
    away = find_distance(array.shape[:rank], expected, by_itk)
    assert (f"ITK programs place it up to {away:.3g} mm away" in note) == bool(away)


MOVED = {"rounded", "other sizes", "zero", "micrometers", "meters, seconds", "4D"}  # by stock MONAI


@pytest.mark.parametrize("name", CASES)
def test_what_stock_monai_places_elsewhere_is_refused_for_it(tmp_path, name):
    path = write_place(tmp_path / "a.nii", **CASES[name][0])
    array, meta = read(path)
    away = len(meta["spatial_shape"]) == 3 and find_distance(
        array.shape[:3], meta["affine"], NibabelReader().read(path).affine
    )
    assert bool(away) == (name in MOVED)
    if away:
        cause = "all lengths for mm" if "meters" in name else "the qform, even an unset one, unless pixdim is the voxel"
        refuses(
            rf"a\.nii lies up to {re.escape(f'{away:.3g}')} mm away from where stock MONAI has it, which takes {cause}",
            read_as_trained,
            path.name,
            tmp_path,
            None,
        )
    else:
        assert read_as_trained(path.name, tmp_path, None)[1].get("note") == meta.get("note")


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("negative", "zero", "4D", "2D")])
def test_a_result_with_the_place_of_its_image_lies_on_it_for_nibabel_and_itk(tmp_path, name):
    path = write_place(tmp_path / "a.nii", **CASES[name][0])
    nib.save(nib.Nifti1Image(noise(4, 5, 6, high=2).astype(np.uint8), np.eye(4)), tmp_path / "b.nii.gz")
    copy_place(path, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").affine, nib.load(path).affine)
    image, result = (SimpleITK.ReadImage(str(tmp_path / file)) for file in ("a.nii", "b.nii.gz"))
    np.testing.assert_array_equal(affine_of(result), affine_of(image))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(result).T, noise(4, 5, 6, high=2))


@pytest.mark.parametrize("sform", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([1.0, 1, 0, 1])])
def test_an_affine_without_inverse_is_refused(tmp_path, sform):
    path = write_place(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[280:328] = sform[:3].astype("<f4").tobytes()
    path.write_bytes(content)
    refuses(r"a\.nii has no valid affine \(sform .* of code 1, qform of code 0", read, path)


def test_shear_of_nrrd_is_told_since_itk_reads_no_label_map_of_it(tmp_path):
    lps, volume = np.diag([-1, -1, 1, 1]) @ SHEARED, noise(4, 5, 6)
    *axes, origin = (f"({','.join(map(repr, column))})" for column in lps[:3].T.tolist())
    head = (
        f"type: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 5 6\nspace directions: {' '.join(axes)}\n"
    )
    head = f"NRRD0004\n{head}kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: {origin}\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + volume.astype("<i2").tobytes(order="F"))
    array, meta = read(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(array, volume)
    np.testing.assert_allclose(meta["affine"], SHEARED)
    image = nib.Nifti1Image(array, meta["affine"])
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(RuntimeError, match="orthonormal"):
        SimpleITK.ReadImage(str(tmp_path / "a.nii"))
    image.set_qform(meta["affine"], 1)
    nib.save(image, tmp_path / "a.nii")
    away = find_distance(array.shape, SHEARED, affine_of(SimpleITK.ReadImage(str(tmp_path / "a.nii"))))
    assert meta["note"].startswith("its axes are sheared by 12 degrees; ITK programs read a NIfTI file of it ")
    assert f"up to {away:.3g} mm away, or not at all" in meta["note"]


HEADS = {  # of NRRD and MetaImage: the size of voxels, its unit, and the file up to its data
    "nrrd": (
        "spacings: {}",
        "units: {}",
        "NRRD0004\ntype: short\ndimension: {}\nsizes: {}\nendian: little\n{}encoding: raw\n\n",
    ),
    "mha": (
        "ElementSpacing = {}",
        "DistanceUnits = {}",
        "NDims = {}\nDimSize = {}\nBinaryData = True\n{}ElementType = MET_SHORT\nElementDataFile = LOCAL\n",
    ),
}


def write_head(folder, suffix, spatial_dims, spacing, *lines):
    """A file with these lines in its header; the spacing in mm that it should have."""
    size, _, head = HEADS[suffix]
    values = noise(*(4, 5, 6)[:spatial_dims])
    lines = [size.format(" ".join(map(str, (2, 3, 5)[:spatial_dims])))] * spacing + list(lines)
    shape = " ".join(map(str, values.shape))
    text = head.format(spatial_dims, shape, "".join(f"{line}\n" for line in lines))
    (folder / f"a.{suffix}").write_bytes(text.encode() + values.astype("<i2").tobytes(order="F"))
    return folder / f"a.{suffix}", values


@pytest.mark.parametrize("suffix", HEADS)
@pytest.mark.parametrize(
    ("unit", "factor"),
    [("mm", 1), ("um", 0.001), ("microns", 0.001), ("cm", 10), ("m", 1000), ("meter", 1000), ("\u00b5m", 0.001)],
)
def test_lengths_of_nrrd_and_metaimage_are_in_mm(tmp_path, suffix, spatial_dims, unit, factor):
    words = unit if suffix == "mha" else " ".join([f'"{unit}"'] * spatial_dims)
    path, values = write_head(tmp_path, suffix, spatial_dims, 1, HEADS[suffix][1].format(words))
    array, meta = read(path)
    np.testing.assert_array_equal(array, values)
    lengths = np.linalg.norm(meta["affine"][:3, :spatial_dims], axis=0)
    np.testing.assert_allclose(lengths, factor * np.array([2, 3, 5])[:spatial_dims])
    assert meta.get("note", "").startswith(f"lengths in {unit} are read as mm" if factor != 1 else "")
    image = SimpleITK.ReadImage(str(path))
    assert list(image.GetSpacing()) == [2, 3, 5][:spatial_dims]  # whatever the unit


@pytest.mark.parametrize(
    ("suffix", "lines", "note"),
    [
        ("nrrd", [], "no voxel spacing, taken as 1 mm"),
        ("nrrd", ["axis mins: 0 0 0", "axis maxs: 8 15 30"], "no voxel spacing, taken as 1 mm"),
        ("mha", [], "no voxel spacing, taken as 1 mm"),
        ("mha", ["ElementSize = 1 1 1"], None),
        ("nrrd", ["Spacings: 1 1 1", 'units: "inch" "inch" "inch"'], "lengths in inch, which are taken as mm"),
        ("mha", ["ElementSize = 1 1 1", "ElementToIntensityFunctionSlope = 1.0"], None),
        (
            "mha",
            ["ElementSize = 1 1 1", "ElementToIntensityFunctionSlope = 2"],
            "stored values, ElementToIntensityFunction not applied",
        ),
    ],
)
def test_what_itk_passes_over_in_a_header_is_noted(tmp_path, suffix, lines, note):
    path, values = write_head(tmp_path, suffix, 3, 0, *lines)
    array, meta = read(path)
    assert meta.get("note") == note
    np.testing.assert_array_equal(array, values)
    np.testing.assert_allclose(np.linalg.norm(meta["affine"][:3, :3], axis=0), 1)


def test_values_on_a_surface_are_no_volume(tmp_path):
    rows = nib.cifti2.ScalarAxis(["thickness"])
    columns = nib.cifti2.BrainModelAxis.from_surface(np.arange(5), 9, "CortexLeft")
    nib.save(nib.Cifti2Image(np.ones((1, 5), np.float32), header=(rows, columns)), tmp_path / "a.dscalar.nii")
    refuses(r"a\.dscalar\.nii is a Cifti2Image, which is no volume of voxels", read, tmp_path / "a.dscalar.nii")


def test_a_label_map_that_is_not_compressed_is_put_elsewhere(tmp_path):
    """Its array must not lie in the file that is written anew."""
    values = np.random.default_rng(0).integers(9, size=(300, 200)).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0])), tmp_path / "map.nii")
    nib.save(nib.Nifti1Image(values[..., None], np.eye(4)), tmp_path / "source.nii")
    affine = np.array([[0, 0, 5, 7], [2, 0, 0, 8], [0, 3, 0, 9], [0, 0, 0, 1.0]])
    set_affine(tmp_path / "map.nii", affine)
    copy_place(tmp_path / "map.nii", tmp_path / "source.nii")
    for name in ("map.nii", "source.nii"):
        image = nib.load(tmp_path / name)
        np.testing.assert_allclose(image.affine, affine)
        np.testing.assert_array_equal(np.squeeze(image.dataobj), values)
