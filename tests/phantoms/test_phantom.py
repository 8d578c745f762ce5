import csv

import nibabel
import numpy as np
import pytest
from PIL import Image

from dira_monai.phantoms import chest as phantom
from dira_monai.phantoms.anatomy import ORGANS
from dira_monai.phantoms.chest import XRAY_FIELD, chest_ct, chest_xray, write_phantoms
from dira_monai.phantoms.primitives import draw_primitives
from dira_monai.utils.errors import InputError


def world(volume, mask):
    """Positions in mm of the voxels of a mask, shape (n, 3)."""
    return np.argwhere(mask) @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", params=[0, 3, 5])
def ct(request):
    return chest_ct(request.param)


@pytest.fixture(scope="module")
def diseased():
    """A seed whose patient has at least two nodules."""
    return next(seed for seed in range(50) if chest_ct(seed, (56, 48, 40), 6.0).nodules.max() > 1)


@pytest.fixture(scope="module")
def xray_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xray")
    write_phantoms(folder, "xray", count=3, seed=4)
    return folder


def test_ct_is_a_function_of_the_seed():
    one, same, other = (chest_ct(seed, (56, 48, 40), 6.0) for seed in (8, 8, 9))
    for first, second in zip(one, same, strict=True):
        np.testing.assert_array_equal(first, second)
    assert (one.image != other.image).mean() > 0.5
    assert (one.organs != other.organs).any()


def test_ct_types_and_grid(ct):
    assert [array.dtype for array in ct[:3]] == [np.int16, np.uint8, np.uint8]
    assert {array.shape for array in ct[:3]} == {(112, 96, 80)}
    assert nibabel.aff2axcodes(ct.affine) == ("R", "A", "S")
    np.testing.assert_allclose(ct.affine @ [55.5, 47.5, 39.5, 1], [0, 0, 0, 1])  # the middle is the origin


def test_spacing_leaves_the_patient_the_same():
    fine, coarse = chest_ct(1, (112, 96, 80), 3.0), chest_ct(1, (56, 48, 40), 6.0)
    for organ in ("lung", "heart"):
        centers = [world(volume, volume.organs == ORGANS[organ]).mean(axis=0) for volume in (fine, coarse)]
        np.testing.assert_allclose(*centers, atol=1.5)
        volumes = [(v.organs == ORGANS[organ]).sum() * np.linalg.det(v.affine) for v in (fine, coarse)]
        np.testing.assert_allclose(*volumes, rtol=0.05)


def test_hounsfield_units(ct):
    mean = {name: ct.image[ct.organs == value].mean() for name, value in ORGANS.items()}
    assert -950 < mean["lung"] < -700
    assert 20 < mean["heart"] < 60
    assert 200 < mean["bone"] < 700
    assert ct.image[:4, -4:].mean() == pytest.approx(-1000, abs=8)  # air beside the patient
    assert ct.image.min() >= -1024
    i, j, k = np.argwhere(ct.organs == ORGANS["heart"]).mean(axis=0).astype(int)
    assert 10 < ct.image[i - 3 : i + 4, j - 3 : j + 4, k - 3 : k + 4].std() < 20  # noise of 15 HU


def test_sizes_and_positions_of_organs(ct):
    liters = {name: (ct.organs == value).sum() * 27e-6 for name, value in ORGANS.items()}
    assert 2.5 < liters["lung"] < 7
    assert 0.3 < liters["heart"] < 0.9
    heart, bone, lung = (world(ct, ct.organs == ORGANS[name]) for name in ("heart", "bone", "lung"))
    assert heart[:, 0].mean() < -5  # left
    assert heart[:, 2].mean() < lung[:, 2].mean()
    assert bone[:, 1].mean() < 0  # the spine is behind
    assert 0.4 < (lung[:, 0] > 0).mean() < 0.65


def test_nodules_lie_in_the_lungs(diseased):
    ct = chest_ct(diseased)
    assert set(np.unique(ct.organs[ct.nodules > 0])) == {ORGANS["lung"]}
    for number in range(1, ct.nodules.max() + 1):
        points = world(ct, ct.nodules == number)
        assert 1 <= len(points) <= 4 / 3 * np.pi * (7.5 + 1.5) ** 3 / 27
        assert np.ptp(points, axis=0).max() <= 15
        i, j, k = np.rint(np.argwhere(ct.nodules == number).mean(axis=0)).astype(int)
        assert ct.image[i, j, k] > -500


def test_boxes_hold_the_nodules_of_the_same_patient(diseased):
    ct, xray = chest_ct(diseased), chest_xray(diseased)
    assert xray.label == 1
    assert len(xray.boxes) == ct.nodules.max()
    for number, (left, top, right, bottom) in enumerate(xray.boxes, 1):
        x, _, z = world(ct, ct.nodules == number).mean(axis=0)
        column, row = (256 * (0.5 - position / XRAY_FIELD) for position in (x, z))
        assert left - 1 < column < right + 1
        assert top - 1 < row < bottom + 1
        assert 3 <= right - left <= 15 * 256 / XRAY_FIELD + 2


def test_a_nodule_brightens_its_box_only(diseased, monkeypatch):
    xray = chest_xray(diseased)
    healthy = phantom.draw_patient(diseased)._replace(nodules=np.empty((0, 4)))
    monkeypatch.setattr(phantom, "draw_patient", lambda seed: healthy)
    difference = xray.image.astype(int) - chest_xray(diseased).image
    outside = np.ones(difference.shape, bool)
    for left, top, right, bottom in xray.boxes:
        assert difference[top:bottom, left:right].max() >= 3
        outside[top - 3 : bottom + 3, left - 3 : right + 3] = False
    assert abs(difference[outside]).max() <= 1


@pytest.mark.parametrize("seed", range(6))
def test_label_means_nodules(seed):
    xray, ct = chest_xray(seed, size=64), chest_ct(seed, (56, 48, 40), 6.0)
    assert xray.label == (ct.nodules.max() > 0) == (len(xray.boxes) > 0)


@pytest.mark.parametrize("size", [100, 256])
def test_xray_looks_from_the_front(size):
    xray = chest_xray(2, size)
    assert xray.image.dtype == xray.organs.dtype == np.uint8
    assert xray.image.shape == xray.organs.shape == (size, size)
    lung, heart = (xray.organs == ORGANS[name] for name in ("lung", "heart"))
    assert 0.15 < lung.mean() < 0.5
    assert 0.03 < heart.mean() < 0.15
    assert np.argwhere(heart)[:, 1].mean() > size * 0.52  # the heart is on the patient's left, right in the picture
    assert xray.image[lung].mean() + 50 < xray.image[heart].mean()
    assert xray.image[:3, :3].mean() < 20  # air over the shoulder
    np.testing.assert_array_equal(xray.image, chest_xray(2, size).image)
    assert (xray.image != chest_xray(1, size).image).any()


def test_write_ct(tmp_path):
    write_phantoms(tmp_path, "ct", count=1, seed=7)
    expected = chest_ct((7, 0))
    for folder, array in (("images", expected.image), ("labels", expected.organs), ("nodules", expected.nodules)):
        image = nibabel.load(tmp_path / folder / "case_0000.nii.gz")
        assert image.get_data_dtype() == array.dtype
        assert image.header.get_zooms() == (3.0, 3.0, 3.0)
        np.testing.assert_array_equal(image.affine, expected.affine)
        np.testing.assert_array_equal(np.asarray(image.dataobj), array)
    assert (tmp_path / "images" / "case_0000.nii.gz").stat().st_size < 1.5e6
    (row,) = rows(tmp_path / "labels.csv")
    assert [*row] == ["file", "label", "patient", "split"]
    label = str(int(expected.nodules.any()))
    assert [*row.values()] == ["images/case_0000.nii.gz", label, "patient_0000", "train"]
    assert not (tmp_path / "boxes.csv").exists()


def test_write_xray(xray_folder):
    boxes = {f"images/case_{i:04d}.png": chest_xray((4, i)).boxes for i in range(3)}
    for file in boxes:
        with Image.open(xray_folder / file) as image, Image.open(xray_folder / file.replace("images", "masks")) as mask:
            assert (image.mode, image.size) == (mask.mode, mask.size) == ("L", (256, 256))
            assert set(np.unique(mask)) == {0, 255}
    table = rows(xray_folder / "boxes.csv")
    found = [(row["file"], tuple(int(row[edge]) for edge in ("left", "top", "right", "bottom"))) for row in table]
    assert found == [(file, box) for file in boxes for box in boxes[file]]
    assert [(row["file"], int(row["label"])) for row in rows(xray_folder / "labels.csv")] == [
        (file, int(len(boxes[file]) > 0)) for file in boxes
    ]
    assert "Synthetic" in (xray_folder / "README.txt").read_text()
    assert "seed 4" in (xray_folder / "README.txt").read_text()


def test_more_cases_keep_the_earlier_ones(xray_folder, tmp_path):
    write_phantoms(tmp_path, "xray", count=1, seed=4)
    kept = tmp_path / "images" / "case_0000.png"
    before = kept.stat().st_mtime_ns, kept.stat().st_ino
    write_phantoms(tmp_path, "xray", count=3, seed=4)
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before
    names = sorted(path.relative_to(xray_folder) for path in xray_folder.rglob("*"))
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))  # and no temporary file
    (tmp_path / "masks" / "case_0001.png").unlink()
    write_phantoms(tmp_path, "xray", count=3, seed=4)  # a missing file is written again
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before
    for name in names:
        assert (xray_folder / name).is_dir() or (xray_folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_splits_by_patient(tmp_path, monkeypatch, capsys):
    small = chest_xray(0, size=32)
    monkeypatch.setattr(phantom, "chest_xray", lambda seed: small)
    write_phantoms(tmp_path, "xray", count=20)
    table = rows(tmp_path / "labels.csv")
    assert len({row["patient"] for row in table}) == 20
    count = {split: sum(row["split"] == split for row in table) for split in ("train", "val", "test")}
    assert count == {"train": 14, "val": 2, "test": 4}
    assert {row["label"] for row in table} == {"0", "1"}
    assert "xray phantoms" in capsys.readouterr().err  # the progress bar


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "mr"}, "kind must be ct, xray, primitives_2d or primitives_3d, got 'mr'"),
        ({"count": 0}, "count must be an integer of at least 1, got 0"),
        ({"count": 2.5}, "count must be an integer of at least 1, got 2.5"),
        ({"count": True}, "count must be an integer of at least 1, got True"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        write_phantoms(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_other_data_are_not_mixed_in(xray_folder):
    with pytest.raises(InputError, match="holds other data than xray phantoms of seed 5; name an empty folder"):
        write_phantoms(xray_folder, "xray", count=3, seed=5)


@pytest.mark.parametrize("dims", [2, 3])
def test_write_primitives(dims, tmp_path):
    write_phantoms(tmp_path, f"primitives_{dims}d", count=1, seed=3)
    axes, count = ((256, 256), (4, 16)) if dims == 2 else ((96, 96, 96), (12, 40))
    (image,), classes = draw_primitives((3, 0), (1, *axes), count, (0.05, 0.3))
    for folder in ("images", "labels"):
        (file,) = (tmp_path / folder).iterdir()
        found = np.asarray(Image.open(file)) if dims == 2 else np.asarray(nibabel.load(file).dataobj)
        gray = 255 * image if dims == 2 else 2000 * image - 1000
        np.testing.assert_allclose(found, gray if folder == "images" else classes, atol=0.501)
    assert not (tmp_path / "labels.csv").exists()
