"""The command infer: what it takes for images, what it refuses, and what becomes of each image."""

import csv
import json
import math
import os
import threading
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from finetune_bundle import KINDS, bundle, configs, later
from monai.transforms import LoadImage
from PIL import ExifTags, Image
from running import load
from scan_files import (
    LPS,
    READS_SIGNED_BYTES,
    SAGITTAL,
    SIGNED_BYTES,
    UNKNOWN,
    affine_of,
    close_folders,
    cut,
    noise,
    write_image,
    write_nifti,
    write_place,
    write_series,
    write_slice,
)
from threshold_network import CLASSES, STEEPNESS, threshold_options

from dira_monai.apps.infer import infer, loading, step
from dira_monai.apps.infer.inputs import find_inputs
from dira_monai.apps.infer.names import name_results
from dira_monai.bundle.config import read_config
from dira_monai.images.reader import ScanReader
from dira_monai.utils.errors import InputError
from dira_monai.visualize.labels import COLORS

VOLUMES, PICTURES = ("segmentation", 3), ("segmentation", 2)
CLASSIFIED = ("classification", 2)


def inputs(folder, *images, kind=VOLUMES, output_dir="out", **values):
    config = read_config(bundle(*kind), values, ("inference.json",))
    return find_inputs([folder / image for image in images], config, folder / output_dir)


def found(folder, *images, **options):
    """What is inferred, relative to the folder."""
    return [Path(path).relative_to(folder).as_posix() for path in inputs(folder, *images, **options).paths]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def run(folder, *images, kind=PICTURES, values=None, **options):
    """Infer by a network that thresholds, results in the folder ``results``."""
    images = [folder / image for image in images]
    return infer(bundle(*kind), images, **threshold_options(*kind, folder) | (values or {}) | options)


def statuses(inference):
    return {Path(row.file).name: row.status for row in inference.rows}


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("kind", [VOLUMES, CLASSIFIED])
@pytest.mark.parametrize(
    ("image", "output_dir", "expected"),
    [
        ("data", "data/out", ["data/a", "data/outliers/b"]),
        ("scans_new", "scans", ["scans_new/d"]),
        ("br[1]", "out", ["br[1]/c"]),
        ("scans_new", ".", ["scans_new/d"]),
    ],
)
def test_a_folder_stands_for_all_but_label_maps_and_results(tmp_path, kind, image, output_dir, expected):
    suffix = {2: ".PNG", 3: ".nii.gz"}[kind[1]]
    names = ("data/a", "data/outliers/b", "data/out/a_seg", "data/Labels/a", "br[1]/c", "scans_new/d")
    touch(tmp_path, *(f"{name}{suffix}" for name in names), "data/notes.txt", "data/x.mgz")
    assert found(tmp_path, image, kind=kind, output_dir=output_dir) == [f"{name}{suffix}" for name in expected]
    left_out = inputs(tmp_path, image, kind=kind, output_dir=output_dir).left_out
    assert left_out == (3 if image == "data" else 0)


def test_files_folders_and_series_are_taken_once_in_their_order(tmp_path):
    touch(tmp_path, "b.nii.gz", "all/a.mha", "all/old.img", "all/c.nii/d.nii")
    for name in ("all/ct", "all/deep/mr"):
        write_series(tmp_path / name, noise(3, 8, 8), series=f"1.{len(name)}")
    expected = ["b.nii.gz", "all/a.mha", "all/c.nii/d.nii", "all/ct", "all/deep/mr", "all/old.img"]
    assert found(tmp_path, "b.nii.gz", "all", "all/ct", "all/old.img", "b.nii.gz") == expected


def test_a_series_of_pictures_is_taken_by_the_suffix_that_is_given(tmp_path):
    write_series(tmp_path / "films", noise(2, 8, 8))
    cure = r"films: holds no image file \.png, \.jpg, \.jpeg; give --suffixes .\['\.dcm'\]"
    with pytest.raises(InputError, match=cure):
        found(tmp_path, "films", kind=CLASSIFIED)
    names = found(tmp_path, "films", kind=CLASSIFIED, suffixes=[".dcm"])
    assert [Path(name).suffix for name in names] == [".dcm", ".dcm"]


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (["gone.nii.gz"], r"gone\.nii\.gz: no such file$"),
        ([], "no image is given"),
        (["empty"], r"empty: holds no image file \.nii, \.nii\.gz"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, images, sentence):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=sentence):
        found(tmp_path, *images)


def test_a_folder_that_cannot_be_searched_is_named(tmp_path, monkeypatch):
    write_image(tmp_path / "in/a.png", noise(8, 8))
    (tmp_path / "in/closed").mkdir()
    close_folders(monkeypatch, "closed")
    inference = run(tmp_path, "in")
    assert statuses(inference) == {"a.png": "done", "closed": "failed"}
    assert inference.rows[1].note == "cannot be searched: Permission denied"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["scan0.png", "scan0.jpg"], ["scan0.png", "scan0.jpg"]),
        (["case0.nii.gz", "case0.nrrd", "b.nii"], ["case0.nii.gz", "case0.nrrd", "b"]),
        (["1.2.7.1", "1.2.7.2", "1.2.7.10"], ["1.2.7.1", "1.2.7.2", "1.2.7.10"]),
        (["a/x.dcm", "b/x.DCM", "x.v2.nii.gz"], ["a/x", "b/x", "x.v2"]),
        (["a.png", "A.PNG", "a.png.png"], ["a.png", "A.PNG_2", "a.png.png"]),
        (["d/.png", "d/b.png"], [".png", "b"]),
        (["x/taken.png"], ["taken.png"]),
    ],
)
def test_each_result_has_a_name_of_its_own(paths, expected):
    names = name_results([f"/data/{path}" for path in paths], [".png"], "_seg.png", ["Taken_seg.png"])
    assert names == [f"{name}_seg.png" for name in expected]


@pytest.mark.parametrize("spacing", [None, [1.7, 1.3, 2.0]])
def test_results_are_those_of_the_bundle_in_folders_like_the_images(finetuned, tmp_path, spacing):
    kind, _, options = finetuned
    images = Path(options["dataset_dir"], "images")
    names = sorted(path.name for path in images.iterdir())[:3]
    (tmp_path / "in/deep").mkdir(parents=True)
    for name, place in zip(names, ("in", "in/deep", "in/deep"), strict=True):
        (tmp_path / place / name).symlink_to(images / name)
    values = later(options)
    if spacing:  # of which the record of the training would not hear
        (tmp_path / "models").mkdir()
        (tmp_path / "models/model.pt").symlink_to(f"{options['ckpt_dir']}/model.pt")
        values |= {"spacing": spacing[: kind[1]], "ckpt_dir": str(tmp_path / "models")}
    folder = infer(bundle(*kind), tmp_path / "in", **values | {"output_dir": str(tmp_path / "out")}).output_dir
    plain = {"datalist": [str(images / name) for name in names], "output_dir": str(tmp_path / "plain")}
    monai.bundle.run(config_file=configs(kind, ["inference"]), **values, **plain)
    if kind[0] == "classification":
        ours, theirs = (place / "probabilities.csv" for place in (folder, tmp_path / "plain"))
        ours, theirs = ([line.split(",")[1:] for line in path.read_text().splitlines()] for path in (ours, theirs))
        assert ours == theirs
        return
    ours, theirs = (sorted(place.rglob("*_seg.*"), key=lambda p: p.name) for place in (folder, tmp_path / "plain"))
    assert [path.relative_to(folder).parent.as_posix() for path in ours] == [".", "deep", "deep"]
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


def write_mixed(folder):
    """Pictures of which some cannot be used."""
    for name in ("scan0.png", "scan0.jpg", "with space/b c.png", "cut.png"):
        write_image(folder / name, noise(12, 20, high=255))
    cut(folder / "cut.png")
    touch(folder, "empty.png")
    (folder / "text.png").write_text("no picture")


def test_a_broken_image_is_named_and_the_others_go_on(tmp_path, command):
    write_mixed(tmp_path / "in")
    options = [f"--{key}={value}".replace(" ", "") for key, value in threshold_options(*PICTURES, tmp_path).items()]
    status, output, _ = command("infer", str(bundle(*PICTURES)), str(tmp_path / "in"), *options)
    assert status.startswith(f"error: 3 of 6 images failed, first {tmp_path}/in/cut.png: cannot be read: ")
    assert output.splitlines()[-1] == f"{tmp_path}/results holds the results of 3 of 6 images; " + (
        f"{tmp_path}/results/infer.csv lists them"
    )
    rows = {Path(row["file"]).name: row for row in table(tmp_path / "results/infer.csv")}
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(
        ["cut.png", "empty.png", "text.png"], "failed"
    ) | dict.fromkeys(["scan0.png", "scan0.jpg", "b c.png"], "done")
    assert rows["empty.png"]["note"] == "is empty (0 bytes)"
    assert rows["text.png"]["note"] == f"{UNKNOWN} does not read"
    outputs = {row["output"] for row in rows.values() if row["output"]}
    assert outputs == {"scan0.png_seg.png", "scan0.jpg_seg.png", "with space/b c_seg.png"}
    written = {path.relative_to(tmp_path / "results").as_posix() for path in (tmp_path / "results").rglob("*_seg.png")}
    assert written == outputs
    image = np.asarray(Image.open(tmp_path / "in/scan0.png"))
    labels = np.asarray(Image.open(tmp_path / "results/scan0.png_seg.png"))
    np.testing.assert_array_equal(labels, image > 127)


def test_voxels_that_are_no_numbers_fail(tmp_path):
    write_nifti(tmp_path / "good.nii", noise(8, 8, 8))
    write_nifti(tmp_path / "nan.nii", np.where(np.eye(8)[..., None] * np.ones(8) > 0, np.nan, 1).astype(np.float32))
    inference = run(tmp_path, "good.nii", "nan.nii", kind=VOLUMES)
    assert statuses(inference) == {"good.nii": "done", "nan.nii": "failed"}
    assert inference.failed[0].note == "holds NaN or infinite voxels"


def test_the_error_of_a_network_ends_one_image(tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name, noise(8, 8))
    original = step.Step._draw

    def fail(self, output, path, caption):
        if caption.endswith("b.png"):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nand more")
        original(self, output, path, caption)

    monkeypatch.setattr(step.Step, "_draw", fail)
    inference = run(tmp_path, "a.png", "b.png", "c.png")
    assert [row.status for row in inference.rows] == ["done", "failed", "done"]
    assert inference.rows[1].note == "CUDA out of memory. Tried to allocate 2 GiB"
    assert sorted(path.name for path in inference.output_dir.glob("*_seg.png")) == ["a_seg.png", "c_seg.png"]


def test_an_image_is_loaded_while_the_network_computes(tmp_path, monkeypatch):
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        write_image(tmp_path / name, noise(8, 8))
    begun = [threading.Event() for _ in names]
    load_image, compute = loading.InputImages.__getitem__, step.Step.__call__

    def begin(self, index):
        begun[index].set()
        return load_image(self, index)

    def wait(self, engine, loaded):
        assert all(event.wait(30) for event in begun[: loaded.number + 2])
        return compute(self, engine, loaded)

    monkeypatch.setattr(loading.InputImages, "__getitem__", begin)
    monkeypatch.setattr(step.Step, "__call__", wait)
    assert run(tmp_path, *names).failed == []


def test_results_stay_in_their_folder_where_a_reader_changes_the_working_folder(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", noise(8, 8))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    load_image = loading.InputImages.__getitem__

    def move(self, index):
        os.chdir(tmp_path / "elsewhere")  # as itk does while it loads its parts
        return load_image(self, index)

    monkeypatch.setattr(loading.InputImages, "__getitem__", move)
    inference = run(tmp_path, "a.png", values={"output_dir": "out"})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_overlay.png", "a_seg.png", "infer.csv"]
    assert inference.output_dir == tmp_path / "out"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_interrupt_leaves_a_table(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, noise(8, 8))
    compute = step.Step.__call__

    def interrupt(self, engine, loaded):
        if loaded.number == 1:
            raise KeyboardInterrupt
        return compute(self, engine, loaded)

    monkeypatch.setattr(step.Step, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "a.png", "b.png")
    assert [row["status"] for row in table(tmp_path / "results/infer.csv")] == ["done", "not reached"]


def test_earlier_results_of_other_images_stay(tmp_path):
    for name in ("one/a.png", "two/a.png"):
        write_image(tmp_path / name, noise(8, 8, seed=len(name)))
    first = run(tmp_path, "one/a.png")
    before = (first.output_dir / "a_seg.png").read_bytes()
    assert run(tmp_path, "two/a.png").rows[0].output == "a.png_seg.png"
    assert run(tmp_path, "one/a.png").rows[0].output == "a_seg.png"
    assert (first.output_dir / "a_seg.png").read_bytes() == before
    assert [row["output"] for row in table(first.table)] == ["a.png_seg.png", "a_seg.png"]
    cut(tmp_path / "one/a.png")
    row = run(tmp_path, "one/a.png").rows[0]
    assert row.status == "failed"
    assert row.note.endswith("; the result of an earlier inference is kept")
    assert (first.output_dir / "a_seg.png").read_bytes() == before


def test_a_file_that_is_no_result_is_not_overwritten(tmp_path):
    write_image(tmp_path / "case.png", noise(8, 8))
    truth = write_image(tmp_path / "case_seg.png", noise(8, 8)).read_bytes()
    with pytest.raises(InputError, match=r"case_seg\.png: exists and is not listed in infer\.csv beside it; give"):
        run(tmp_path, "case.png", values={"output_dir": str(tmp_path)})
    assert (tmp_path / "case_seg.png").read_bytes() == truth
    (tmp_path / "results").mkdir()
    (tmp_path / "results/infer.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"infer\.csv: is no table of an inference"):
        run(tmp_path, "case.png")


def test_the_overlay_shows_the_label_map_in_color(tmp_path):
    image = np.zeros((16, 16))
    image[4:8, 2:14] = 255
    write_image(tmp_path / "a.png", image)
    run(tmp_path, "a.png")
    picture = np.asarray(Image.open(tmp_path / "results/a_overlay.png"))
    red = (picture == np.rint(0.55 * 255 + 0.45 * np.array(COLORS[1]))).all(axis=-1)
    assert red.sum() == 4 * 12 * (224 // 16) ** 2  # a tile is 224 pixels wide
    run(tmp_path, "a.png", values={"output_dir": str(tmp_path / "bare")}, pictures=False)
    assert sorted(path.name for path in (tmp_path / "bare").iterdir()) == ["a_seg.png", "infer.csv"]


def test_the_overlay_of_a_volume_is_in_the_geometry_of_its_file(tmp_path):
    image = np.full((16, 20, 24), -1000, np.int16)
    image[2:6, 4:8, 6:10] = 1000
    nib.save(
        nib.Nifti1Image(image.transpose(2, 0, 1), np.eye(4)[[1, 2, 0, 3]] @ np.diag([1, -2, 1, 1])), tmp_path / "a.nii"
    )
    inference = run(tmp_path, "a.nii", kind=VOLUMES)
    labels = nib.load(inference.output_dir / inference.rows[0].output)
    np.testing.assert_array_equal(np.asarray(labels.dataobj), image.transpose(2, 0, 1) > 0)
    picture = np.asarray(Image.open(tmp_path / "results/a_overlay.png")).astype(int)
    red = (picture == np.rint(0.55 * 255 + 0.45 * np.array(COLORS[1]))).all(axis=-1)
    zoom = round(224 / (16 + 20))
    assert red.sum() == 3 * 4 * 4 * zoom**2


PLACES = {  # axes of the voxels in RAS, as columns
    "RAS": np.eye(3),
    "LPS": np.diag([-1, -1, 1]),
    "PIR": np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": np.array([[0, 0.6, 0.8], [0, -0.8, 0.6], [1, 0, 0]]),
}


@pytest.mark.parametrize("reader", [None, "dira_monai.ScanReader"])
def test_label_maps_lie_on_their_images_for_nibabel_and_itk(tmp_path, reader):
    values = np.where(noise(6, 7, 8) > 100, 500, -500).astype(np.int16)
    for name, axes in PLACES.items():
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = axes * [0.5, 0.75, 3], (11, -12, 13)
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / f"{name}.nii.gz")), str(tmp_path / f"{name}.nrrd"))
    images = [f"{name}{suffix}" for name in PLACES for suffix in (".nii.gz", ".nrrd")]
    inference = run(tmp_path, *images, kind=VOLUMES, values={"reader": reader}, pictures=False)
    for name, row in zip(images, inference.rows, strict=True):
        assert (row.status, row.note) == ("done", "")
        check_on_image(tmp_path / name, inference.output_dir / row.output, values > 0)


def check_on_image(image, label_map, expected):
    """The label map has these values, at the place of the image for nibabel (where it reads it) and SimpleITK."""
    written = nib.load(label_map)
    np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
    source, result = (SimpleITK.ReadImage(str(path)) for path in (image, label_map))
    np.testing.assert_allclose(affine_of(result), affine_of(source), atol=1e-4)
    np.testing.assert_allclose(
        written.affine, nib.load(image).affine if ".nii" in image.name else affine_of(source), atol=1e-4
    )


@pytest.mark.parametrize("suffix", [".nii", "_2d.nii", ".nrrd", ".mha", ".dcm"])
def test_label_maps_of_slices_lie_on_their_images(tmp_path, suffix):
    """A sagittal slice where its format has one, else one in x and y that is turned."""
    values = noise(6, 9, high=2)  # rows, columns
    flat = np.array([[0, 0.5, 0, 7], [-0.75, 0, 0, 8], [0, 0, 1, 0], [0, 0, 0, 1]])
    sagittal = np.array([[0, 0, 2, 7], [-0.75, 0, 0, 8], [0, -0.5, 0, 9], [0, 0, 0, 1]])
    path, expected = tmp_path / f"a{suffix}", flat
    if suffix == ".dcm":
        write_slice(path, values, (-7, -8, 9), SAGITTAL, PixelSpacing=[0.5, 0.75], RescaleIntercept=0)
        expected = sagittal
    elif suffix == ".nii":
        expected = sagittal
        nib.save(nib.Nifti1Image(values.T[..., None], expected), path)
    elif suffix == "_2d.nii":
        nib.save(nib.Nifti1Image(values.T, expected), path)
    else:
        image = SimpleITK.GetImageFromArray(values)
        image.SetSpacing((0.75, 0.5))
        image.SetOrigin((-7, -8))
        image.SetDirection((0, -1, 1, 0))
        SimpleITK.WriteImage(image, str(path))
    options = {"reader": "dira_monai.ScanReader", "output_extension": ".nii.gz", "intensity_range": [0, 1]}
    inference = run(tmp_path, path.name, values=options, pictures=False)
    (row,) = inference.rows
    assert (row.status, row.note) == ("done", "")
    written = nib.load(inference.output_dir / row.output)
    np.testing.assert_array_equal(np.asarray(written.dataobj).reshape(9, 6), values.T)
    np.testing.assert_allclose(written.affine[:3, [0, 1, 3]], expected[:3, [0, 1, 3]], atol=1e-6)
    source, result = (SimpleITK.ReadImage(str(file)) for file in (path, inference.output_dir / row.output))
    for index in ((0, 0, 0), (8, 5, 0)):
        places = [image.TransformIndexToPhysicalPoint(index[: image.GetDimension()]) for image in (source, result)]
        np.testing.assert_allclose(*(place[: min(map(len, places))] for place in places), atol=1e-4)


def test_pictures_that_lists_refuse_or_note_are_refused_or_noted(tmp_path):
    pages = [Image.fromarray(noise(8, 9, seed=seed).astype(np.uint8)) for seed in (0, 1)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "signed.tif", tiffinfo={339: 2})
    Image.fromarray(noise(8, 9).astype(np.uint16)).save(tmp_path / "white.tif", tiffinfo={262: 0})
    colors = np.stack([noise(8, 9, seed=seed) for seed in range(3)], -1).astype(np.uint8)
    write_image(tmp_path / "colors.png", colors)  # made gray, as the bundle says
    names = ["pages.tif", "signed.tif", "white.tif", "colors.png"]
    rows = run(tmp_path, *names).rows
    assert [row.status for row in rows] == ["failed", "failed", "done", "done"]
    starts = [
        "pages.tif has 2 pages",
        f"signed.tif {SIGNED_BYTES}" if READS_SIGNED_BYTES else UNKNOWN,
        "0 is white, and 16 bits",
        "its colors",
    ]
    assert all(row.note.startswith(start) for row, start in zip(rows, starts, strict=True))
    assert rows[3].note == "its colors become gray"
    shown = np.asarray(Image.open(tmp_path / "results" / rows[3].output))
    np.testing.assert_array_equal(shown, np.asarray(Image.open(tmp_path / "colors.png").convert("L")) > 127)


@pytest.mark.parametrize(("shape", "kind"), [((8, 9, 1), PICTURES), ((8, 9, 1), VOLUMES)])
def test_a_single_slice_names_its_dimensions(tmp_path, shape, kind):
    write_nifti(tmp_path / "a.nii", noise(*shape))
    (row,) = run(tmp_path, "a.nii", kind=kind).rows
    words = {2: "has 3 spatial dimensions where spatial_dims is 2; --reader dira_monai.ScanReader may take it"}
    assert row.note == words.get(kind[1], "has 2 spatial dimensions where spatial_dims is 3")
    values = {"reader": "dira_monai.ScanReader", "intensity_range": [0, 200]}
    assert run(tmp_path, "a.nii", kind=kind, values=values).rows[0].status == ("done" if kind[1] == 2 else "failed")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sform": LPS.round(4)}, ""),
        ({"codes": (0, 0)}, "neither sform nor qform is set"),
        ({"codes": (2, 2), "qform": np.diag([1, 1, 1, 1])}, "its qform differs from its sform"),
        ({"unit": 3}, "lengths in micrometers are read as mm"),
        ({"pixdim": (1, 1, 1)}, "pixdim 1 x 1 x 1 is not the size"),
    ],
)
def test_label_maps_have_the_header_of_an_image_about_which_programs_differ(tmp_path, changes, words):
    image = write_place(tmp_path / "a.nii", shape=(6, 7, 8), **changes)
    inference = run(tmp_path, "a.nii", kind=VOLUMES, values={"intensity_range": [0, 200]})
    (row,) = inference.rows
    assert row.status == "done"
    assert words in row.note
    assert bool(row.note) == bool(words)
    check_on_image(image, inference.output_dir / row.output, noise(6, 7, 8) > 100)


@pytest.mark.parametrize("reader", [None, "dira_monai.ScanReader"])
def test_slices_that_are_sheared_are_told(tmp_path, reader):
    write_series(tmp_path / "a", noise(4, 8, 8), shift=(0, -0.25, 0))
    (row,) = run(tmp_path, "a", kind=VOLUMES, values={"reader": reader}).rows
    done = ", straightened" if reader else ""
    assert (row.status, row.note) == ("done", f"slices sheared by 14 degrees (gantry tilt){done}")


def test_classes_are_named_and_compared_with_the_truth(tmp_path):
    for name, value in (("dark/a.png", 51), ("bright/b.png", 204), ("bright/c.png", 0), ("other/d.png", 255)):
        write_image(tmp_path / "in" / name, np.full((8, 8), value))
    inference = run(tmp_path, "in", kind=CLASSIFIED)
    rows = {row["file"][-5:]: row for row in table(inference.table)}
    assert list(rows["a.png"])[5:] == ["truth", "predicted", *CLASSES]
    assert [rows[name + ".png"]["truth"] for name in "abcd"] == ["dark", "bright", "bright", ""]
    assert [rows[name + ".png"]["predicted"] for name in "abcd"] == ["dark", "bright", "dark", "bright"]
    expected = 1 / (1 + math.exp(-STEEPNESS * (204 / 255 - 0.5)))
    assert float(rows["b.png"]["bright"]) == pytest.approx(expected, rel=1e-5)
    assert inference.describe()[-2] == "the truth is known of 3 images, of which 2 are predicted right"
    with (inference.output_dir / "probabilities.csv").open() as stream:
        assert stream.readline() == "file,dark,bright\n"
    run(tmp_path, "in/dark", kind=CLASSIFIED)  # a part of them, once more
    assert len(table(inference.output_dir / "probabilities.csv")) == 4
    with pytest.raises(InputError, match=r"infer\.csv: is of an inference with other classes; give another"):
        run(tmp_path, "in/dark", kind=CLASSIFIED, values={"class_names": ["a", "b"]})


def write_list(folder, **values):
    entries = [{"image": "a.png", "label": 1}, {"image": "b.png", "label": 0}]
    content = {"task": "classification", "class_names": CLASSES, "dataset_dir": str(folder), "training": entries[:1]}
    (folder / "list.json").write_text(json.dumps(content | {"test": entries[1:]} | values))
    return folder / "list.json"


def test_the_truth_is_read_from_a_datalist(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name, np.full((8, 8), 255))
    inference = run(tmp_path, "a.png", "b.png", "c.png", kind=CLASSIFIED, truth=write_list(tmp_path))
    assert [row.truth for row in inference.rows] == ["bright", "dark", ""]
    several = {"training": [{"image": "a.png", "label": [1, None]}], "test": [{"image": "b.png", "label": [0, 1]}]}
    inference = run(
        *(tmp_path, "a.png", "b.png"),
        kind=CLASSIFIED,
        values={"multi_label": True},
        truth=write_list(tmp_path, **several),
    )
    assert [row.truth for row in inference.rows] == ["dark|bright?", "bright"]
    assert [row.predicted for row in inference.rows] == ["dark|bright", "dark|bright"]  # both logits are 0 or more


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": "segmentation"}, r"list\.json is no datalist for classification"),
        (
            {"class_names": ["x", "y"]},
            r"list\.json is of the classes \['x', 'y'\], the network of \['dark', 'bright'\]",
        ),
        ({"training": [], "test": []}, r"list\.json has none of the 1 images"),
    ],
)
def test_a_datalist_of_something_else_is_refused(tmp_path, change, sentence):
    write_image(tmp_path / "a.png", noise(8, 8))
    with pytest.raises(InputError, match=sentence):
        run(tmp_path, "a.png", kind=CLASSIFIED, truth=write_list(tmp_path, **change))


def test_a_run_is_inferred_by_its_own_bundle(tmp_path):
    write_image(tmp_path / "a.png", noise(8, 8))
    values = threshold_options(*PICTURES, tmp_path / "run/bundle")
    (tmp_path / "run/bundle/configs").mkdir()
    content = json.loads((bundle(*PICTURES) / "configs/inference.json").read_text())
    content |= {name: value for name, value in values.items() if not name.endswith("_dir")}
    (tmp_path / "run/bundle/configs/inference.json").write_text(json.dumps(content))
    inference = infer(tmp_path / "run", [tmp_path / "a.png"])
    assert inference.output_dir == tmp_path / "run/prediction"
    assert inference.failed == []
    record = {"starts": [{"config": {"class_names": ["one", "two"]}}]}
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"class_names is .* where it was .* in the training, by \S+run\.json"):
        infer(tmp_path / "run", [tmp_path / "a.png"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    write_image(tmp_path / "a.png", noise(8, 8))
    values = threshold_options(*PICTURES, tmp_path)
    state = load(tmp_path / "models/model.pt")
    state["bias"][1] = value
    torch.save(state, tmp_path / "models/model.pt")
    with pytest.raises(InputError, match=r"model\.pt: weights must be finite numbers, but bias holds NaN or infinity"):
        infer(bundle(*PICTURES), [tmp_path / "a.png"], **values)
    assert not (tmp_path / "results").exists()


def test_a_pretraining_is_refused():
    pretraining = bundle(*PICTURES).with_name("dira_pretrain_2d")
    with pytest.raises(
        InputError, match="is of a pre-training, whose output is restored images; give the run of a fine-"
    ):
        infer(pretraining, "a.png")


@pytest.mark.parametrize(
    ("values", "options", "sentence"),
    [
        ({"datalist": ["b.png"]}, {}, r"datalist \['b\.png'\]: give images without the name of a value"),
        ({"dataset_dir": "x"}, {}, "dataset_dir x: give images without the name of a value"),
        ({"dataset#data": []}, {}, "dataset#data .*: give images without the name of a value"),
        ({}, {"truth": "list.json"}, "truth is for classification"),
        ({"output_dir": "inf#2"}, {}, "--output_dir /.*/inf#2: MONAI makes :: of # in paths"),
    ],
)
def test_options_that_would_be_ignored_are_refused(tmp_path, values, options, sentence):
    write_image(tmp_path / "a.png", noise(8, 8))
    with pytest.raises(InputError, match=sentence):
        run(tmp_path, "a.png", values=values, **options)
    assert not (tmp_path / "results").exists()


def test_a_classification_has_no_dicom_segmentation(tmp_path):
    write_image(tmp_path / "a.png", noise(8, 8))
    with pytest.raises(InputError, match="writes no label map, so there is no DICOM segmentation of it"):
        run(tmp_path, "a.png", kind=CLASSIFIED, dicom_seg=True)


def test_values_and_weights_that_contradict_the_training_are_refused(finetuned, tmp_path):
    kind, folder, options = finetuned
    image = str(min(Path(options["dataset_dir"], "images").iterdir()))
    values = later(options) | {"output_dir": str(tmp_path)}

    def refused(sentence, **change):
        with pytest.raises(InputError, match=sentence):
            infer(bundle(*kind), image, **values | change)

    (tmp_path / "models").symlink_to(folder / "models")
    (tmp_path / "output").symlink_to(folder / "out")
    own = {"ckpt_dir": str(tmp_path / "models")}
    told = r"intensity_range is \[1, 2\] where it was .* in the training, by \S+run\.json; give the values"
    refused(told, intensity_range=[1, 2], **own)
    refused("class_names is .* where it was", class_names=options["class_names"][::-1], **own)
    refused(r"model\.pt: .* is of another network: .*; give the values of the training", class_names=[*"abcdefg"])
    refused(r"nowhere/model\.pt: no such file; run train\.json first", ckpt_dir="/nowhere")
    refused("has no value 'colour' to replace by 3", colour=3)
    refused("--spacing null: write None instead", spacing="null")
    refused("image a.png: give images without the name of a value", image="a.png")
    refused("device cuda:99 cannot be used", device="cuda:99")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("models", "output")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_takes_values_as_monai_does(kind, command, tmp_path):
    image = tmp_path / ("a.png" if kind[1] == 2 else "a.nii.gz")
    write_image(image, noise(8, 8)) if kind[1] == 2 else write_nifti(image, noise(8, 8, 8))
    values = threshold_options(*kind, tmp_path) | {"output_dir": "results", "pictures": False}
    words = [f"--{key}={value}".replace(" ", "") for key, value in values.items()]
    status, output, _ = command("infer", str(bundle(*kind)), "a.png" if kind[1] == 2 else "a.nii.gz", *words)
    last = f"{tmp_path}/results holds the results of 1 of 1 images; {tmp_path}/results/infer.csv lists them"
    assert (status, output.splitlines()[-1]) == (0, last)
    result = "probabilities.csv" if kind[0] == "classification" else f"a_seg{image.name[1:]}"
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted(["infer.csv", result])
    status, _, _ = command("infer", str(bundle(*kind)), "nowhere.png", *words)
    assert status == "error: nowhere.png: no such file"
    status, _, _ = command("infer", str(bundle(*kind)), image.name, "--pictures", "maybe")
    assert status == "error: --pictures must be True or False, got 'maybe'."


def test_a_turned_tiff_is_upright_or_named(tmp_path):
    stored = np.kron(noise(3, 4, high=2) * 255, np.ones((8, 8))).astype(np.uint8)
    for compression in ("raw", "tiff_lzw"):
        for orientation in (1, 3, 6, 8):
            path, tags = tmp_path / "in" / f"{compression}{orientation}.tif", {ExifTags.Base.Orientation: orientation}
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(stored).save(path, compression=compression, tiffinfo=tags)
    results = run(tmp_path, "in", suffixes=[".tif"])
    for row in results.rows:
        shown = np.rot90(stored, {"1": 0, "3": 2, "6": -1, "8": 1}[Path(row.file).stem[-1]])
        np.testing.assert_array_equal(ScanReader().get_data([Path(row.file)])[0].T, shown)
        if row.status == "done":
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "results" / row.output)), shown > 127)
        else:  # Pillow mixes up pixels that it maps into memory
            assert "raw" in row.file
            assert "and stock MONAI reads" in row.note
            assert row.note.endswith("save it as PNG")
    assert sum(row.status == "done" for row in results.rows) >= 6


@pytest.mark.parametrize(("orientation", "turn"), [(3, "ROTATE_180"), (6, "ROTATE_270"), (2, "FLIP_LEFT_RIGHT")])
def test_photographs_are_read_as_they_are_shown_in_training_and_inference(tmp_path, orientation, turn):
    stored = np.kron(noise(3, 4, high=2) * 255, np.ones((8, 8))).astype(np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    shown = np.asarray(Image.fromarray(stored).transpose(Image.Transpose[turn]))
    config = read_config(bundle(*PICTURES), {}, ("train.json",))
    for name in ("reader", "label_reader"):
        trained = LoadImage(reader=config.build(name), image_only=True)(tmp_path / "a.png")
        np.testing.assert_array_equal(trained.numpy().T, shown)
    (row,) = run(tmp_path, "a.png").rows
    assert row.status == "done"
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "results" / row.output)), shown > 127)
