"""Lists of images with label maps: what pairs, what is left out, which classes the maps hold."""

import json
import struct
import zlib

import nibabel as nib
import numpy as np
import pydicom
import pytest
from finetune_bundle import bundle
from labeled_files import LISTS, LUNG, SHAPES, classify, drawn, entries, labels, reasons, segment, write_maps
from monai.transforms import Compose, LoadImage
from PIL import Image
from scan_files import cut, noise, read, refuses, write_image, write_nifti, write_series, write_slice

from dira_monai.apps.planning.labels import find_classes as plan_classes
from dira_monai.bundle.config import read_config
from dira_monai.datalists.label_maps import find_classes
from dira_monai.datalists.options import LabelOptions
from dira_monai.datalists.prepare_labeled import prepare_labeled
from dira_monai.datalists.summary import describe_labeled
from dira_monai.datalists.unlabeled import make_datalist
from dira_monai.images.reader import ScanReader
from dira_monai.images.stock import OUR_READER, read_gray_factor
from dira_monai.utils.errors import InputError


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    ("folders", "ending"),
    [(("images", "labels"), ""), (("Images", "masks"), "_mask"), (("imagesTr", "labelsTr"), "_gt")],
)
def test_pairs_of_image_and_label_map(tmp_path, spatial_dims, folders, ending):
    made = segment(write_maps(tmp_path, spatial_dims, folders=folders, ending=ending))
    assert made["spatial_dims"] == spatial_dims
    assert [(entry["image"], entry["label"]) for entry in entries(made)] == [
        (f"{folders[0]}/case_{index}.nii.gz", f"{folders[1]}/case_{index}{ending}.nii.gz") for index in range(10)
    ]
    test = drawn([f"case_{index}" for index in range(10)], 0.2, 0, "test")
    assert {entry["patient"] for entry in made["test"]} == test
    assert all(entry["holds"] == [1, 1] for entry in entries(made))
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize(
    ("image", "label", "splits"),
    [
        ("{}-image/{}", "{}-mask/{}", ("trainval", "test")),  # TN3K
        ("{}_images/{}", "{}_masks/{}", ("train", "test")),
        ("{}Dataset/image/{}", "{}Dataset/mask/{}", ("Train", "Test")),  # PraNet
        ("{} Set/Images/{}", "{} Set/Ground-truths/mask_{}", ("Train", "Test")),  # QaTa-COV19
    ],
)
def test_the_same_names_in_the_folders_of_two_splits(tmp_path, image, label, splits):
    for number, split in enumerate(splits):
        for index in range(6):
            picture = noise(6, 8, seed=10 * number + index)
            write_image(tmp_path / f"{image.format(split, index)}.png", picture)
            write_image(tmp_path / f"{label.format(split, index)}.png", (picture > 100) * 255)
    made = segment(tmp_path, label_threshold=127)
    wanted = [(f"{image.format(s, i)}.png", f"{label.format(s, i)}.png") for s in splits for i in range(6)]
    found = [[(entry["image"], entry["label"]) for entry in made[key]] for key in LISTS]
    assert sorted(found[0] + found[1]) == wanted[:6]
    assert sorted(found[2]) == wanted[6:]
    pretrained = make_datalist(tmp_path)
    assert {e["image"] for key in LISTS[:2] for e in pretrained[key]} == {name for name, _ in wanted[:6]}


@pytest.mark.parametrize(
    ("image", "label"), [("{}.img", "{}.label"), ("s/crossmoda_ldn_{}_ceT1", "s/crossmoda_ldn_{}_Label")]
)
def test_partners_by_their_endings(tmp_path, image, label):
    for index in range(1, 6):
        volume = noise(6, 8, 5, seed=index)
        write_nifti(tmp_path / f"{image.format(index)}.nii.gz", volume)
        write_nifti(tmp_path / f"{label.format(index)}.nii.gz", (volume > 100).astype(np.uint8))
    pairs = [(entry["image"], entry["label"]) for entry in entries(segment(tmp_path))]
    assert pairs == [(f"{image.format(i)}.nii.gz", f"{label.format(i)}.nii.gz") for i in range(1, 6)]


def test_any_two_suffixes_and_places_pair(tmp_path):
    write_image(tmp_path / "images" / "a" / "x_0000.jpg", noise(6, 8))
    write_image(tmp_path / "masks" / "a" / "x.png", noise(6, 8, high=2))
    write_image(tmp_path / "images" / "b" / "x.png", noise(6, 8))
    write_image(tmp_path / "masks" / "b" / "x.png", noise(6, 8, high=2))
    write_nifti(tmp_path / "images" / "case_0001.nii.gz", noise(6, 8))
    write_image(tmp_path / "masks" / "case_0001_seg.png", noise(8, 6, high=2))
    made = segment(tmp_path, patient="file", test_fraction=0)
    assert labels(made) == ["masks/a/x.png", "masks/b/x.png", "masks/case_0001_seg.png"]
    assert made["test"] == []


def test_snapshots_of_label_maps_are_none_of_volumes(tmp_path):
    """VerSe: sub-verse1_seg-vert_snp.png lies beside the label map."""
    for index in range(3):
        write_nifti(tmp_path / f"rawdata/sub-{index}/sub-{index}_ct.nii.gz", noise(6, 8, 5, seed=index))
        write_nifti(tmp_path / f"derivatives/sub-{index}/sub-{index}_seg-vert_msk.nii.gz", noise(6, 8, 5, high=2))
        write_image(tmp_path / f"derivatives/sub-{index}/sub-{index}_seg-vert_snp.png", noise(6, 8))
    names = [f"derivatives/sub-{index}/sub-{index}_seg-vert_msk.nii.gz" for index in range(3)]
    assert labels(segment(tmp_path, test_fraction=0)) == names


def test_a_dicom_series_pairs_by_its_folder(tmp_path):
    for index in range(2):
        write_series(tmp_path / "images" / f"p{index}", noise(3, 4, 5), series=f"1.{index}", patient=f"p{index}")
    size, origin = (5, 4, 3), (-10, 20, 5)  # LPS, as write_series has it
    affine = np.diag([-0.75, -0.5, 2.5, 1.0])
    affine[:3, 3] = np.array([-1, -1, 1]) * origin
    (tmp_path / "labels").mkdir()
    for index in range(2):
        values = noise(*size, seed=index, high=2).astype(np.uint8)
        nib.save(nib.Nifti1Image(values, affine), tmp_path / "labels" / f"p{index}.nii.gz")
    made = segment(tmp_path, test_fraction=0, strict=True)
    assert labels(made) == ["labels/p0.nii.gz", "labels/p1.nii.gz"]
    assert made["patient_rule"] == "dicom"
    entry = made["training"][0]
    assert entry["image"] == f"images/{entry['patient']}"  # the folder, which stock MONAI reads as one volume
    volume, label = (LoadImage(image_only=True)(tmp_path / entry[key]) for key in ("image", "label"))
    assert volume.shape == label.shape == size
    np.testing.assert_allclose(volume.affine, affine)
    ours, _ = read(tmp_path / entry["image"])
    np.testing.assert_array_equal(ours, volume.numpy())


def write_gray_png(path, values, bits):
    """A gray PNG of so many bits a pixel, which Pillow reads but does not write."""
    rows = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes() for row in values.astype(np.uint8)]
    chunks = {b"IHDR": struct.pack(">2I5B", *values.shape[::-1], bits, 0, 0, 0, 0)}
    chunks |= {b"IDAT": zlib.compress(b"".join(b"\0" + row for row in rows)), b"IEND": b""}
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks.items()]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(("bits", "factor"), [(2, 85), (4, 17)])
def test_label_maps_of_few_bits_are_named_with_the_values_that_are_read(tmp_path, bits, factor):
    names = ["background", "a", "b", "c"]
    (tmp_path / "masks").mkdir()
    values = np.arange(48).reshape(6, 8) % 3  # never c
    for index in range(10):
        write_image(tmp_path / "images" / f"{index}.png", noise(6, 8, seed=index))
        write_gray_png(tmp_path / "masks" / f"{index}.png", values, bits)
    np.testing.assert_array_equal(LoadImage()(tmp_path / "masks" / "0.png").numpy().T, values * factor)
    read = [0, factor, 2 * factor, 3 * factor]
    with pytest.raises(
        InputError, match=rf"a picture of {2**bits} grays, read times {factor}\).*--label_values \"(.*)\""
    ) as e:
        segment(tmp_path, names)
    assert str(read) in str(e.value)
    for path in (tmp_path / "masks").iterdir():
        write_gray_png(path, np.arange(48).reshape(6, 8) % 4, bits)
    made = segment(tmp_path, names, label_values=read)
    assert all(entry["holds"] == [1, 1, 1, 1] for entry in entries(made))


@pytest.mark.parametrize(("bits", "factor"), [(2, 85), (4, 17)])
def test_values_of_a_tiff_of_few_bits_are_multiplied_by_its_factor(tmp_path, bits, factor):
    values = np.arange(48).reshape(6, 8) % 2**bits
    rows = b"".join(np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]) for row in values.astype(np.uint8))
    tags = {256: 8, 257: 6, 258: bits, 259: 1, 262: 1, 273: 8, 278: 6, 279: len(rows)}  # by the TIFF 6.0 specification
    start = 8 + len(rows)
    entries_of = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", start) + rows + struct.pack("<H", len(tags)) + entries_of + bytes(4)
    (tmp_path / "a.tif").write_bytes(head)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.tif")), values * factor)
    assert read_gray_factor(tmp_path / "a.tif") == factor


def test_label_maps_of_a_palette_in_dicom_get_a_cure(tmp_path):
    values = noise(6, 8, high=2)
    for number in range(2):
        write_image(tmp_path / "images" / f"{number}.png", noise(6, 8))
        folder = tmp_path / "labels" / f"{number}"
        file = write_slice(folder / "map.dcm", values, PhotometricInterpretation="PALETTE COLOR", PixelRepresentation=0)
        data = pydicom.dcmread(file)
        for color, levels in enumerate(([0, 65535], [0, 0], [0, 255])):
            data.add_new((0x28, 0x1101 + color), "US", [2, 0, 16])
            data.add_new((0x28, 0x1201 + color), "OW", np.array(levels, "<u2").tobytes())
        data.save_as(file)
        np.testing.assert_array_equal(pydicom.dcmread(file).pixel_array, values)
    with pytest.raises(
        InputError, match=r"3 channels where 1 is needed.* palette: pydicom.dcmread\(file\).pixel_array"
    ):
        segment(tmp_path, spatial_dims=2)


@pytest.mark.parametrize("hidden", [0, 255])
def test_label_maps_whose_opacity_says_something_else_are_refused(tmp_path, hidden):
    """Values and opacity are the same mask, or the values are a second one where nothing is seen."""
    for number in range(8):
        write_image(tmp_path / "images" / f"{number}.png", noise(6, 8, seed=number))
        mask = noise(6, 8, seed=number, high=2)
        values = 255 * mask
        values[0] = np.where(mask[0], 255, hidden)
        (tmp_path / "labels").mkdir(exist_ok=True)
        image = Image.fromarray(np.dstack([values, 255 * mask]).astype(np.uint8), mode="LA")
        image.save(tmp_path / "labels" / f"{number}.png")
    options = {"label_threshold": 127, "patient": "file", "spatial_dims": 2, "pictures_only": True}
    if hidden:
        refuses(r"0\.png has transparent pixels with values, .* without opacity\.$", segment, tmp_path, **options)
    else:
        assert segment(tmp_path, **options)["skipped"] == []


def test_label_maps_of_a_palette_get_a_cure(tmp_path):
    picture = Image.fromarray(noise(6, 8, high=2).astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    (tmp_path / "masks").mkdir()
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "images" / name, noise(6, 8))
        picture.save(tmp_path / "masks" / name)
    with pytest.raises(
        InputError, match=r"3 channels where 1 is needed; save the numbers of the classes as gray values"
    ):
        segment(tmp_path)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.array(picture)).save(tmp_path / "masks" / name)  # the cure
    assert entries(segment(tmp_path, test_fraction=0))[0]["holds"] == [1, 1]


@pytest.mark.parametrize("slope", [1 / 255, 1 / 3, 0.1])
def test_label_maps_behind_a_slope_are_whole_numbers(tmp_path, slope):
    labels = noise(4, 5, 6, high=3).astype(np.uint8)
    stored = np.round(labels / slope).astype(np.int16)
    for index in range(10):
        write_nifti(tmp_path / "images" / f"{index}.nii", noise(4, 5, 6, seed=index))
        path = write_nifti(tmp_path / "labels" / f"{index}.nii", stored)
        content = bytearray(path.read_bytes())
        content[112:116] = struct.pack("<f", slope)
        path.write_bytes(content)
    assert not np.array_equal(nib.load(path).get_fdata(), labels)
    made = segment(tmp_path, ["background", "a", "b"])
    assert all(entry["holds"] == [1, 1, 1] for entry in entries(made))
    config = read_config(bundle("segmentation", 3), {"axcodes": None}, ("train.json",))
    trained = Compose(config.build("fixed_transforms"))({"image": tmp_path / "images" / "9.nii", "label": path})
    np.testing.assert_array_equal(trained["label"][0], labels)


@pytest.mark.parametrize(
    ("images", "maps", "options"),
    [("images", "masks", {}), ("images/train", "masks/train", {}), ("films", "masks", {"labels": "masks"})],
)
def test_x_rays_in_one_folder_pair_by_their_names(tmp_path, images, maps, options):
    for index in range(4):
        stored = noise(6, 8, seed=index)
        tags = {"position": None, "Modality": "DX", "series": f"1.{index}", "patient": f"p{index}"}
        write_slice(tmp_path / images / f"x{index}.dcm", stored, **tags)
        write_image(tmp_path / maps / f"x{index}.png", stored > 100)
    made = segment(tmp_path, test_fraction=0, strict=True, reader=OUR_READER, **options)
    pairs = [(entry["image"], entry["label"]) for entry in entries(made)]
    assert pairs == [(f"{images}/x{index}.dcm", f"{maps}/x{index}.png") for index in range(4)]
    for image, label in pairs:
        scan, mask = LoadImage(reader=ScanReader())(tmp_path / image), LoadImage()(tmp_path / label)
        np.testing.assert_array_equal(scan > 100 - 1024, mask)
    with pytest.raises(InputError, match="2D fine-tuning reads PNG, JPEG, TIFF and BMP; convert it"):
        segment(tmp_path, pictures_only=True, **options)


def test_a_series_that_shares_its_folder_is_left_out_with_the_reason(tmp_path):
    files = [
        write_series(tmp_path / f"p{index}", noise(3, 4, 5), series=f"1.{index}", patient=f"p{index}")[0]
        for index in range(6)
    ]
    write_slice(tmp_path / "p1" / "scout.dcm", noise(4, 5), series="2", patient="p1")
    rows = "".join(f"{file.relative_to(tmp_path)},{'ab'[index % 2]},p{index}\n" for index, file in enumerate(files))
    (tmp_path / "labels.csv").write_text(f"file,label,patient\n{rows}")
    made = classify(tmp_path, ["a", "b"], test_fraction=0)
    first = files[1].relative_to(tmp_path)
    assert [skip["reason"] for skip in made["skipped"] if "begins" in skip["reason"]] == [
        f"{first} begins a DICOM series of 3 files in a folder with 1 others; move each series to a folder of its own."
    ]


@pytest.mark.parametrize("beside", ["DICOMDIR", ".DS_Store", "._00.dcm", ".old.dcm", "report.txt", "thumb.png"])
def test_what_monai_leaves_out_beside_a_series_changes_nothing(tmp_path, beside):
    for index in range(3):
        write_series(tmp_path / "images" / f"p{index}", noise(3, 4, 5), patient=f"p{index}")
        write_nifti(tmp_path / "labels" / f"p{index}.nii.gz", noise(5, 4, 3, high=2))
        file = tmp_path / "images" / f"p{index}" / beside
        if beside == ".old.dcm":
            write_slice(file, noise(4, 5), position=(0, 0, 99))
        else:
            file.write_bytes(b"what a system adds")
    _, meta = read(tmp_path / "images" / "p0")
    for index in range(3):
        file = tmp_path / "labels" / f"p{index}.nii.gz"
        nib.save(nib.Nifti1Image(nib.load(file).get_fdata(), meta["affine"]), file)
    made = segment(tmp_path, test_fraction=0)
    assert [entry["image"] for entry in entries(made)] == [f"images/p{index}" for index in range(3)]
    assert LoadImage(image_only=True)(tmp_path / "images" / "p0").shape == (5, 4, 3)


@pytest.mark.parametrize("inside", [True, False])
def test_labels_names_the_folder(tmp_path, inside):
    write_maps(tmp_path / "data", 2)
    folder = tmp_path / "data" / "nodules" if inside else tmp_path / "elsewhere"
    (tmp_path / "data" / "labels").rename(folder)
    (tmp_path / "data" / "images").rename(tmp_path / "data" / "scans")
    made = segment(tmp_path / "data", labels="nodules" if inside else str(folder))
    assert labels(made)[0] == ("nodules/case_0.nii.gz" if inside else "../elsewhere/case_0.nii.gz")
    with pytest.raises(InputError, match="labels must be a folder of label maps, got 'none'"):
        segment(tmp_path / "data", labels="none")


def test_folders_that_are_missing_or_ambiguous(tmp_path):
    write_image(tmp_path / "images" / "a.png", noise(6, 8))
    with pytest.raises(InputError, match=r"holds no images with label maps: folders images and labels .*, got None"):
        segment(tmp_path)
    for name in ("labels", "masks"):
        write_image(tmp_path / name / "a.png", noise(6, 8, high=2))
    with pytest.raises(InputError, match="holds label maps in the folders labels and masks; name one by --labels"):
        segment(tmp_path)


@pytest.fixture(params=[2, 3])
def flawed(request, tmp_path):
    """Eighteen good pairs, and one of each flaw."""
    shape = SHAPES[request.param]
    write_maps(tmp_path, request.param, count=18)
    for name in ("alone", "small", "shifted", "broken", "values", "half", "two", "nan", "bent"):
        write_nifti(tmp_path / "images" / f"{name}.nii.gz", noise(*shape, seed=3))
    folder, good = tmp_path / "labels", noise(*shape, high=2)
    write_nifti(folder / "lonely.nii.gz", good)
    write_nifti(folder / "small.nii.gz", good[1:])
    write_nifti(folder / "shifted.nii.gz", good, spacing=(1.05, 2, 3))
    cut(write_nifti(folder / "broken.nii.gz", noise(*[4 * n for n in shape])))
    write_nifti(folder / "values.nii.gz", good + 1)
    write_nifti(folder / "half.nii.gz", (good / 2).astype(np.float32))
    write_nifti(folder / "nan.nii.gz", np.where(good, np.nan, 0).astype(np.float32))
    bent = nib.load(write_nifti(folder / "bent.nii.gz", noise(*shape, high=3).astype(np.uint8)))
    nib.save(nib.Nifti1Image(bent.get_fdata(), bent.affine, bent.header), folder / "bent.nii.gz")
    write_nifti(folder / "two_gt.nii.gz", good)
    write_nifti(folder / "two_seg.nii.gz", good)
    return tmp_path


def test_pairs_that_cannot_be_used(flawed):
    made = segment(flawed)
    found = reasons(made)
    assert len(entries(made)) == 18
    axes = "5 x 8 x 5", "6 x 8 x 5"
    if made["spatial_dims"] == 2:
        axes = "5 x 8", "6 x 8"
    assert found.pop("images/broken.nii.gz").startswith("labels/broken.nii.gz cannot be read: it is cut off")
    assert found == {
        "images/alone.nii.gz": "images/alone.nii.gz has no label map.",
        "labels/lonely.nii.gz": "the label map labels/lonely.nii.gz has no image.",
        "images/small.nii.gz": f"the label map labels/small.nii.gz has {axes[0]} voxels where its image has {axes[1]}.",
        "images/shifted.nii.gz": "the label map labels/shifted.nii.gz lies up to 0.25 mm away from its image: "
        "their affines differ.",
        "images/values.nii.gz": "labels/values.nii.gz holds the label values 1, 2 where 2 classes allow 0 to 1.",
        "images/half.nii.gz": "labels/half.nii.gz holds the label values 0, 0.5 (0.5 is no whole number) "
        "where 2 classes allow 0 to 1.",
        "images/nan.nii.gz": "labels/nan.nii.gz holds the label values 0, nan (nan is no whole number) "
        "where 2 classes allow 0 to 1.",
        "images/bent.nii.gz": "labels/bent.nii.gz holds the label values 0, 0.996, 2 (0.996 is no whole number) "
        "where 2 classes allow 0 to 1.",
        "images/two.nii.gz": "images/two.nii.gz has several label maps: labels/two_gt.nii.gz, labels/two_seg.nii.gz; "
        "merge masks of a class each by dira-monai merge-masks.",
        "labels/two_gt.nii.gz": "the label map labels/two_gt.nii.gz has no image.",
        "labels/two_seg.nii.gz": "the label map labels/two_seg.nii.gz has no image.",
    }
    with pytest.raises(InputError, match=r"images/alone\.nii\.gz has no label map"):
        segment(flawed, strict=True)


def test_maps_of_several_tasks_in_folders_of_their_own(tmp_path):
    for case in range(10, 18):  # as SegRap2023 has them: an image in a folder a case, label maps without such folders
        write_nifti(tmp_path / f"data/case_{case}" / "image.nii.gz", noise(*SHAPES[3], seed=case))
        for task in (1, 2):
            write_nifti(tmp_path / f"data_Labels/Task00{task}/case_{case}.nii.gz", noise(*SHAPES[3], seed=task, high=2))
    refuses("merge-masks, or name the folder of one by --labels", segment, tmp_path)
    made = entries(segment(tmp_path, labels="data_Labels/Task002"))
    assert sorted((entry["image"], entry["label"], entry["patient"]) for entry in made) == [
        (f"data/case_{case}/image.nii.gz", f"data_Labels/Task002/case_{case}.nii.gz", f"case_{case}")
        for case in range(10, 18)
    ]


def test_a_small_difference_of_geometry_is_rounding(tmp_path):
    write_maps(tmp_path, 3)
    values = noise(*SHAPES[3], high=2)
    write_nifti(tmp_path / "labels" / "case_0.nii.gz", values, spacing=(1.001, 2, 3))  # 0.005 mm at the corner
    assert segment(tmp_path)["skipped"] == []


def test_two_images_with_one_name_and_label_maps_in_color(tmp_path):
    write_maps(tmp_path, 2)
    write_image(tmp_path / "images" / "case_0.png", noise(8, 6))
    write_image(tmp_path / "images" / "color.png", noise(8, 6))
    write_image(tmp_path / "labels" / "color.png", noise(8, 6, 3, high=2))
    found = reasons(segment(tmp_path))
    assert found["images/case_0.png"].endswith("has the same label map as images/case_0.nii.gz, labels/case_0.nii.gz.")
    assert found["images/color.png"].startswith("the label map labels/color.png has 3 channels where 1 is needed; save")


def write_masks(root, values, spatial_dims=2, count=5):
    for index in range(count):
        image = noise(*SHAPES[spatial_dims], seed=index)
        write_nifti(root / "images" / f"{index}.nii.gz", image)
        write_nifti(root / "masks" / f"{index}.nii.gz", np.array(values, dtype=np.float32)[image % len(values)])
    return root


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_wrong_classes_are_refused_with_what_mends_them(tmp_path, spatial_dims):
    write_masks(tmp_path, [0, 255], spatial_dims)
    words = (
        r"^masks/0\.nii\.gz holds the label values 0, 255 where 2 classes allow 0 to 1; "
        r'give --label_threshold 127 or --label_values "\[0, 255\]"\.$'
    )
    with pytest.raises(InputError, match=words):
        segment(tmp_path)
    for option in ({"label_threshold": 127}, {"label_values": [0, 255]}):
        assert [entry["holds"] for entry in entries(segment(tmp_path, **option))] == [[1, 1]] * 5
    with pytest.raises(InputError, match=r"0, 255 where 2 classes have the label_values \[0, 1\]; give"):
        segment(tmp_path, label_values=[0, 1])
    with pytest.raises(
        InputError, match=r"makes lung of none .* give --label_threshold 127\.5, where all but 0 is lung"
    ):
        segment(tmp_path, label_threshold=255)
    with pytest.raises(InputError, match="allow 0 to 2; give --label_values with one value a class"):
        segment(tmp_path, class_names=["a", "b", "c"])


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_threshold_meets_more_than_two_values(tmp_path, spatial_dims):
    write_masks(tmp_path, [0, 1, 255], spatial_dims)
    write_masks(tmp_path, [0, 255], spatial_dims, count=4)  # leaves one map of three values
    with pytest.raises(InputError, match=r"1 \(\d+ voxels\), 255 .*, and label_threshold 127 makes lung of 255 and"):
        segment(tmp_path, label_threshold=127)
    made = segment(tmp_path, label_threshold=0.5)
    assert describe_labeled(made).splitlines()[-1].endswith("label_threshold 0.5 makes lung of 1, 255")
    made.update(label_threshold=127, read_by="another version")
    (tmp_path / "own.json").write_text(json.dumps(made))
    given = (str(tmp_path / "own.json"), str(tmp_path / "out"), "segmentation", spatial_dims, 1, LUNG, 0)
    with pytest.raises(InputError, match="label_threshold 127 makes lung of 255"):
        prepare_labeled(*given, label_threshold=127, pictures_only=False)
    found = plan_classes(tmp_path, LabelOptions(task="segmentation", class_names=["a", "b"], pictures_only=False))
    assert found["label_values"].value == [0, 1, 255]


def test_a_value_at_the_threshold_is_the_first_class():
    options = LabelOptions(task="segmentation", class_names=["a", "b"], label_threshold=127)
    for values, holds in (([0, 127], [1, 0]), ([128], [0, 1]), ([127, 128], [1, 1])):
        assert find_classes("a.png", np.array(values), options) == holds


def test_in_2d_only_what_the_bundles_read(tmp_path):
    for index in range(6):
        write_image(
            tmp_path / "images" / f"x{index}.{('png', 'jpg', 'jpeg', 'JPG')[index % 4]}", noise(6, 8, seed=index)
        )
    write_nifti(tmp_path / "images" / "slice.nii.gz", noise(6, 8, 1))
    write_slice(tmp_path / "images" / "s" / "ray.dcm", noise(6, 8))
    rows = [f"x{index},{index % 2}" for index in range(6)] + ["slice,0", "ray,1"]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    made = classify(tmp_path, spatial_dims=2, patient="file")
    assert [entry["image"][7:9] for entry in entries(made)] == [f"x{index}" for index in range(6)]
    reason = "has another format: 2D fine-tuning reads PNG, JPEG, TIFF and BMP; convert it."
    skipped = sorted(skip["reason"] for skip in made["skipped"])
    assert skipped == [f"images/{name} {reason}" for name in ("s/ray.dcm", "slice.nii.gz")]
    taken = classify(tmp_path, spatial_dims=2, patient="file", pictures_only=False, reader=OUR_READER)
    assert len(entries(taken)) == 8


def test_in_2d_label_maps_are_pictures_too(tmp_path):
    for index in range(4):
        write_image(tmp_path / "images" / f"{index}.png", noise(8, 6, seed=index))
        write_image(tmp_path / "masks" / f"{index}.png", noise(8, 6, seed=index, high=2))
    write_image(tmp_path / "images" / "n.png", noise(8, 6))
    write_nifti(tmp_path / "masks" / "n.nii.gz", noise(6, 8, 1, high=2))
    made = segment(tmp_path, pictures_only=True)
    assert reasons(made) == {
        "images/n.png": "masks/n.nii.gz has another format: 2D fine-tuning reads PNG, JPEG, TIFF and BMP; convert it."
    }
    assert len(segment(tmp_path, label_reader=OUR_READER)["skipped"]) == 0
    assert len(entries(segment(write_maps(tmp_path / "3d", 3), pictures_only=True))) == 10


def test_label_values_are_in_the_order_of_the_classes(tmp_path):
    write_masks(tmp_path, [7, 2, 4])
    with pytest.raises(InputError, match="has no image of the class 'b' in training"):
        segment(tmp_path, class_names=["a", "b", "c", "d"], label_values=[2, 9, 4, 7])
    made = segment(tmp_path, class_names=["a", "b", "c"], label_values=[4, 7, 2])
    assert [entry["holds"] for entry in entries(made)] == [[1, 1, 1]] * 5


def test_an_image_as_label_map_is_told_in_short(tmp_path):
    write_masks(tmp_path, np.arange(20) / 2)
    with pytest.raises(InputError, match=r"values 0, 0\.5, 1, 1\.5, 2, 2\.5, 3, 3\.5, \.\.\. \(20 in all\) \(0\.5, "):
        segment(tmp_path)


@pytest.mark.parametrize(
    ("image", "label"),
    [("images/{}", "labels/{}"), ("{}/ct", "{}/seg"), ("{}", "{}_seg"), ("{}/CT", "{}/masks/heart")],
)
def test_label_maps_as_dicom_series(tmp_path, image, label):
    """Slices of plain DICOM, whose files have other names in another order than those of the image."""
    masks = {}
    for number in range(6):
        person = f"p{number}"
        masks[person] = (noise(4, 5, 3, seed=9 + number) > 100).astype(np.int16)
        write_series(
            tmp_path / image.format(person), noise(4, 5, 3, seed=number), series=f"1.{number}.1", patient=person
        )
        folder = tmp_path / label.format(person)
        write_series(folder, masks[person], series=f"1.{number}.2", patient=person, RescaleIntercept=0)
        for place, file in enumerate(sorted(folder.iterdir())):
            file.rename(folder / f"{9 - place}.dcm")
    made = segment(tmp_path)
    assert (len(entries(made)), made["skipped"]) == (6, [])
    for entry in entries(made):
        assert entry["label"] == label.format(entry["patient"])
        array = LoadImage(image_only=True)(tmp_path / entry["label"]).numpy()
        np.testing.assert_array_equal(array, read(tmp_path / entry["label"])[0])
        assert array.sum() == masks[entry["patient"]].sum()
        assert entry["holds"] == [1, 1]


def test_one_of_several_folders_of_label_maps(tmp_path):
    """As Montgomery's left and right lungs."""
    for number in range(5):
        write_nifti(tmp_path / f"CXR/x{number}.nii.gz", noise(6, 8, 5, seed=number))
        for side in range(2):
            mask = (noise(6, 8, 5, seed=10 * side + number) > 100).astype(np.uint8)
            write_nifti(tmp_path / f"Mask/{('left', 'right')[side]}Mask/x{number}.nii.gz", mask)
    refuses("folders leftmask and rightmask; name one by --labels", segment, tmp_path)
    made = segment(tmp_path, labels="Mask/leftMask")
    assert [entry["label"] for entry in entries(made)] == [f"Mask/leftMask/x{number}.nii.gz" for number in range(5)]
    assert made["skipped"] == []


@pytest.mark.parametrize("further", ["Va", "Val", "Ts"])
def test_images_beside_those_that_are_paired_are_counted(tmp_path, further):
    write_maps(tmp_path, 3, folders=("imagesTr", "labelsTr"))
    write_maps(tmp_path, 3, 3, folders=(f"images{further}", f"labels{further}"))
    made = segment(tmp_path)
    assert (len(entries(made)), made["excluded"]) == (10, {f"in images{further}": 3})
    assert f"left out: 3 in images{further}" in describe_labeled(made)


def test_one_case_in_folders_of_other_depths(tmp_path):
    """As PI-CAI has its label maps."""
    for number in range(6):
        write_nifti(tmp_path / f"images/{number}/{number}_100{number}_t2w.nii.gz", noise(6, 8, 5, seed=number))
        mask = (noise(6, 8, 5, seed=number) > 100).astype(np.uint8)
        write_nifti(tmp_path / f"human/resampled/{number}_100{number}.nii.gz", mask)
    made = segment(tmp_path, labels="human/resampled")
    assert [entry["label"] for entry in entries(made)] == [f"human/resampled/{n}_100{n}.nii.gz" for n in range(6)]


@pytest.mark.parametrize(
    ("image", "label", "other"),
    [
        ("Slide_{0:02}/{0:02}_1.png", "GT_{0:02}/{0:02}_1.png", ""),
        ("data_C{0}/images_C{0}/{0}H7.png", "data_C{0}/masks_C{0}/{0}H7_mask.png", ""),
        ("Train/Images/train_{0}.png", "Train/Annotation/train_{0}.png", "Train/Overlay/train_{0}.png"),
        ("trainImages/{0}.png", "trainMasks/{0}.png", ""),
        ("train/Original/{0}_A.png", "train/Ground truth/{0}_A.png", ""),
        ("Train/DATA/DATA_00{0}.png", "Train/MASK/MASK_00{0}.png", ""),
        ("p/PANCREAS_000{0}.png", "TCIA_pancreas_labels-02-05-2017/label000{0}.png", ""),
    ],
)
def test_folders_of_label_maps_of_public_data_sets(tmp_path, image, label, other):
    for number in range(1, 8):
        write_image(tmp_path / image.format(number), noise(6, 8, seed=number))
        write_image(tmp_path / label.format(number), noise(6, 8, seed=number, high=2))
        if other:
            write_image(tmp_path / other.format(number), noise(6, 8, 3, seed=number))
    pairs = {entry["image"]: entry["label"] for key in LISTS for entry in segment(tmp_path, patient="path")[key]}
    assert pairs == {image.format(number): label.format(number) for number in range(1, 8)}


def test_folders_of_several_readers_are_asked_about(tmp_path):
    for number in range(5):
        write_image(tmp_path / f"images/x{number}.png", noise(6, 8, seed=number))
        for reader in (0, 1):
            write_image(tmp_path / f"mask-{reader}/x{number}.png", noise(6, 8, seed=reader, high=2))
    refuses("folders mask-0 and mask-1; name one by --labels", segment, tmp_path)
