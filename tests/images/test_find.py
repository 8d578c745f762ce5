import hashlib

import nibabel as nib
import numpy as np
import pytest
from scan_files import AXIAL, SAGITTAL, noise, relative, write_image, write_nifti, write_series, write_slice

from dira_monai.data.preprocessing import pretrain_preprocessing
from dira_monai.images.facts import check_facts, loaded_shape, measure_image
from dira_monai.images.find import find_images, kind_folder, without_label_maps
from dira_monai.utils.errors import InputError


def check_image(image, spatial_dims, in_channels=1, directory="."):
    facts = measure_image(image, directory)
    check_facts(image, facts, spatial_dims, in_channels)
    return facts


def test_find_images_by_suffix(tmp_path):
    known = ["a.PNG", "b.jpg", "c.jpeg", "d.nii", "e.nii.gz", "f.nrrd", "g.mhd", "sub/deeper/i.png", "sub/h.mha"]
    other = ["g.raw", "g.zraw", "notes.txt", "labels.csv", ".hidden.png", ".cache/j.png", "sub/readme", "DICOMDIR"]
    for name in known + other:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" if name == "DICOMDIR" else b"no image")
    assert find_images(tmp_path) == known


def test_find_images_follows_links_once(tmp_path):
    write_image(tmp_path / "elsewhere" / "a.png", noise(4, 4))
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "scans")
    assert find_images(tmp_path / "scans") == ["link/a.png"]


def test_find_images_of_nothing(tmp_path):
    assert find_images(tmp_path) == []
    with pytest.raises(InputError, match="none does not exist"):
        find_images(tmp_path / "none")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_two_series_in_one_folder_are_two_volumes(tmp_path):
    first = write_series(tmp_path / "s", noise(4, 4, 5), series="1.2.3")
    second = write_series(tmp_path / "s", noise(3, 4, 5), series="1.2.x", depths=[1, 2, 3])  # not a valid UID
    assert find_images(tmp_path) == sorted([relative(first, tmp_path), relative(second, tmp_path)])


def test_one_series_in_two_folders_is_two_volumes(tmp_path):
    first = write_series(tmp_path / "a", noise(3, 4, 5))
    second = write_series(tmp_path / "b", noise(3, 4, 5), depths=[1, 2, 3])
    assert find_images(tmp_path) == [relative(first, tmp_path), relative(second, tmp_path)]


def test_orientations_of_a_series_are_volumes(tmp_path):
    axial = write_series(tmp_path / "axial", noise(3, 4, 5), orientation=AXIAL)
    sagittal = write_series(tmp_path / "sagittal", noise(4, 4, 5), orientation=SAGITTAL)
    (tmp_path / "all").mkdir()
    for file in [*axial, *sagittal]:
        file.rename(tmp_path / "all" / f"{file.parent.name}_{file.name}")
    found = [[name.removeprefix("all/") for name in files] for files in find_images(tmp_path)]
    assert found == [[f"axial_{file.name}" for file in axial], [f"sagittal_{file.name}" for file in sagittal]]


def test_repeated_positions_are_volumes(tmp_path):
    for number in range(6):  # two time points, numbered after each other
        write_slice(tmp_path / f"{number}.dcm", noise(4, 5), position=(0, 0, number % 3), number=number + 1)
    assert find_images(tmp_path) == [["0.dcm", "1.dcm", "2.dcm"], ["3.dcm", "4.dcm", "5.dcm"]]


def test_dicom_that_stands_alone(tmp_path):
    write_slice(tmp_path / "IM1", noise(4, 5), position=None)  # two X-rays of one series, no suffix
    write_slice(tmp_path / "1.2.840.7", noise(4, 5), position=None)
    (tmp_path / "broken.dcm").write_bytes(b"nothing")
    assert find_images(tmp_path) == [["1.2.840.7"], ["IM1"], ["broken.dcm"]]


@pytest.mark.parametrize("whole", [0, 1000], ids=["by slices", "whole"])
def test_check_image_gives_facts(tmp_path, monkeypatch, whole):
    monkeypatch.setattr("dira_monai.images.facts.WHOLE", whole)
    volume = noise(4, 5, 6)
    write_nifti(tmp_path / "a.nii.gz", volume, spacing=(1, 2, 3.5))
    assert check_image("a.nii.gz", 3, 1, tmp_path) == {
        "shape": [4, 5, 6],
        "channels": 1,
        "spacing": [1.0, 2.0, 3.5],
        "axcodes": "RAS",
        "range": [volume.min(), volume.max()],
        "mean": pytest.approx(volume.mean(), rel=1e-5),
        "note": "",
        "few_values": False,
        "blurred_map": False,
        "digest": hashlib.blake2b(b"(4, 5, 6)" + volume.astype("<f4").tobytes(), digest_size=12).hexdigest(),
    }


@pytest.mark.parametrize(
    ("kept", "left_out"),
    [
        (["images/a.png", "images/b.png"], ["labels/a.png", "nodules/a.png"]),
        (["p1/imagesTr/a.nii", "p1/imagesTs/b.nii"], ["p1/labelsTr/a.nii", "predictions/b.nii"]),
        (["images/a.png", "unlabeled/b.png"], ["labels/a.png"]),
        (["imagesTr/a.nii", "imagesVal/b.nii"], ["labelsTr/a.nii", "labelsVal/b.nii"]),
        (["a.png", "more/b.png"], ["masks/a.png"]),
        (["images/a.png", "more/b.png"], []),
        (["labels/a.png", "masks/a.png"], []),
    ],
)
def test_label_maps_are_left_out(kept, left_out):
    assert without_label_maps(sorted([*kept, *left_out])) == kept


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/data/masks/x.png", ("masks", 2)),
        ("/x.png", ("", -1)),
        ("a//train_masks/x.png", ("masks", 2)),
        ("two\nlines/x.png", ("", -1)),
        ("Test Images/labels-val/x.png", ("labels", 1)),
        ("trainMasks/x.png", ("masks", 0)),
    ],
)
def test_a_folder_is_known_by_its_name_in_any_path(path, found):
    assert kind_folder(path) == found


@pytest.mark.parametrize(
    "values",
    [
        {"axcodes": "RAS", "spacing": [0.9, 2, 2.5]},
        {"axcodes": None, "spacing": [1, 1, 1.7]},
        {"axcodes": "SPL", "image_size": 20},
        {"image_size": 13},
    ],
    ids=str,
)
def test_the_shape_of_a_loaded_image_is_known_before(values, tmp_path):
    dims = 3 if "axcodes" in values else 2
    affine = np.array([[0, 0, 2.0, 0], [-1.5, 0, 0, 0], [0, 5.0, 0, 0], [0, 0, 0, 1]])  # the axes of the file: P, S, R
    nib.save(nib.Nifti1Image(noise(*(9, 11, 14)[:dims]), affine), tmp_path / "a.nii")
    wanted = {"axcodes": None, "spacing": None, "image_size": None} | values
    transform = pretrain_preprocessing(in_channels=1, intensity_range=None, **wanted)
    loaded = transform({"image": str(tmp_path / "a.nii")})["image"]
    assert loaded_shape(measure_image("a.nii", tmp_path), **values) == list(loaded.shape[1:])


def test_facts_of_a_picture_and_a_series(tmp_path):
    path = write_image(tmp_path / "a.png", noise(5, 7))
    assert check_image(str(path), 2)["shape"] == [7, 5]
    assert check_image(str(path), 2)["spacing"] is None
    files = relative(write_series(tmp_path, noise(4, 4, 5), depths=[0, 2, 4, 7]), tmp_path)
    facts = check_image(files, 3, 1, tmp_path)
    assert facts["shape"] == [5, 4, 5]
    assert facts["spacing"] == [0.75, 0.5, 1.75]
    assert facts["note"] == "uneven slice gaps 2 to 3 mm, resampled to 1.75 mm"


def test_label_map_is_noted(tmp_path):
    write_nifti(tmp_path / "a.nii", noise(4, 5, 6, high=3))
    assert check_image(str(tmp_path / "a.nii"), 3)["note"] == "whole numbers 0 to 2 only, perhaps a label map"


def bad_voxels(value):
    volume = noise(4, 5, 6).astype(np.float32)
    volume[:2, 0, 0] = value
    return volume


@pytest.mark.parametrize(
    ("array", "spatial_dims", "in_channels", "reason"),
    [
        (np.full((4, 5, 6), 7, np.int16), 3, 1, "holds the value 7 everywhere"),
        (bad_voxels(np.nan), 3, 1, "holds 2 NaN or infinite voxels"),
        (bad_voxels(-np.inf), 3, 1, "holds 2 NaN or infinite voxels"),
        (noise(4, 5, 6), 2, 1, "has 3 spatial dimensions where spatial_dims is 2"),
        (noise(4, 5, 1), 3, 1, "has 2 spatial dimensions where spatial_dims is 3"),
        (noise(4, 5, 6, 2), 3, 1, "has 2 differing channels where in_channels is 1; pass --in_channels 2"),
        (noise(4, 5, 6), 3, 2, "has 1 channel where in_channels is 2; pass --in_channels 1"),
        (
            noise(4, 5, 6, 30),
            3,
            1,
            ".*; pass --in_channels 30, or, of time points, make a file of each",
        ),
    ],
)
def test_check_image_refuses(tmp_path, array, spatial_dims, in_channels, reason):
    write_nifti(tmp_path / "a.nii.gz", array)
    with pytest.raises(InputError, match=f"a.nii.gz {reason}"):
        check_image("a.nii.gz", spatial_dims, in_channels, tmp_path)


@pytest.mark.parametrize(
    ("array", "spatial_dims", "in_channels"),
    [(noise(4, 5, 1), 2, 1), (noise(4, 5, 6, 2), 3, 2), (noise(4, 5, 6, 1), 3, 1), (noise(4, 5), 2, 3)],
)
def test_check_image_accepts(tmp_path, array, spatial_dims, in_channels):
    write_nifti(tmp_path / "a.nii.gz", array)
    assert check_image("a.nii.gz", spatial_dims, in_channels, tmp_path)["shape"] == list(array.shape[:spatial_dims])


def test_colors_need_three_channels_and_gray_fits_any(tmp_path):
    write_image(tmp_path / "color.png", noise(5, 7, 3))
    write_image(tmp_path / "gray.png", np.repeat(noise(5, 7, 1), 3, axis=2))
    assert check_image("color.png", 2, 3, tmp_path)["channels"] == 3
    for in_channels in (1, 3):
        assert check_image("gray.png", 2, in_channels, tmp_path)["channels"] == 1
    with pytest.raises(InputError, match=r"color\.png has 3 differing channels where in_channels is 1; pass --in_chan"):
        check_image("color.png", 2, 1, tmp_path)
