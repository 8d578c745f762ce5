"""The command infer: what it takes for images, what it refuses, and that its results are those of the bundle."""

from pathlib import Path

import monai.bundle
import pytest
from finetune_bundle import bundle, configs, later
from scan_files import noise, write_series

from dira_monai.apps.infer import find_inputs, infer
from dira_monai.bundle.config import read_config
from dira_monai.utils.errors import InputError

VOLUMES, PICTURES = ("segmentation", 3), ("classification", 2)


def found(folder, *images, kind=VOLUMES, output_dir="out", **values):
    """What is inferred, relative to the folder."""
    config = read_config(bundle(*kind), values, ("inference.json",))
    paths = find_inputs([folder / image for image in images], config, folder / output_dir)
    return [Path(path).relative_to(folder).as_posix() for path in paths]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("kind", [VOLUMES, PICTURES])
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
    touch(tmp_path, *(f"{name}{suffix}" for name in names), "data/notes.txt")
    assert found(tmp_path, image, kind=kind, output_dir=output_dir) == [f"{name}{suffix}" for name in expected]


def test_files_folders_and_series_are_taken_once_in_their_order(tmp_path):
    touch(tmp_path, "b.nii.gz", "all/a.mha", "all/old.img")
    for name in ("all/ct", "all/deep/mr"):
        write_series(tmp_path / name, noise(3, 8, 8), series=f"1.{len(name)}")
    expected = ["b.nii.gz", "all/a.mha", "all/ct", "all/deep/mr", "all/old.img"]
    assert found(tmp_path, "b.nii.gz", "all", "all/ct", "all/old.img", "b.nii.gz") == expected


def test_a_series_of_pictures_is_taken_by_the_suffix_that_is_given(tmp_path):
    write_series(tmp_path / "films", noise(2, 8, 8))
    with pytest.raises(InputError, match=r"films: holds no image file \.png, \.jpg, \.jpeg"):
        found(tmp_path, "films", kind=PICTURES)
    names = found(tmp_path, "films", kind=PICTURES, suffixes=[".dcm"])
    assert [Path(name).suffix for name in names] == [".dcm", ".dcm"]


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (["gone.nii.gz"], r"gone\.nii\.gz: no such file$"),
        ([], "no image is given"),
        (["empty"], r"empty: holds no image file \.nii, \.nii\.gz"),
        (["two"], "two: holds several DICOM series; give the folder of one, or a --reader"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, images, sentence):
    (tmp_path / "empty").mkdir()
    for series in ("1.1", "1.2"):
        write_series(tmp_path / "two", noise(3, 8, 8), series=series)
    with pytest.raises(InputError, match=sentence):
        found(tmp_path, *images)
    if images == ["two"]:  # which another reader judges itself
        assert found(tmp_path, *images, reader="dira_monai.ScanReader") == images


def test_results_are_those_of_the_bundle_in_folders_like_the_images(finetuned, tmp_path):
    kind, _, options = finetuned
    images = Path(options["dataset_dir"], "images")
    names = sorted(path.name for path in images.iterdir())[:2]
    (tmp_path / "in/deep").mkdir(parents=True)
    for name, place in zip(names, ("in", "in/deep"), strict=True):
        (tmp_path / place / name).symlink_to(images / name)
    values = later(kind, options)
    folder = infer(bundle(*kind), [tmp_path / "in"], values | {"output_dir": str(tmp_path / "out")})
    plain = {"datalist": [str(images / name) for name in names], "output_dir": str(tmp_path / "plain")}
    monai.bundle.run(config_file=configs(kind, ["inference"]), **values, **plain)
    ours, theirs = ([p for p in sorted(f.rglob("*")) if p.is_file()] for f in (folder, tmp_path / "plain"))
    if kind[0] == "classification":
        (ours, theirs) = ([line.split(",")[1:] for line in t.read_text().splitlines()] for (t,) in (ours, theirs))
        assert ours == theirs
        return
    assert [path.relative_to(folder).parent.as_posix() for path in ours] == [".", "deep"]
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


def test_values_and_weights_that_contradict_the_training_are_refused(finetuned, tmp_path):
    kind, folder, options = finetuned
    image = str(min(Path(options["dataset_dir"], "images").iterdir()))
    values = later(kind, options) | {"output_dir": str(tmp_path)}

    def refused(sentence, **change):
        with pytest.raises(InputError, match=sentence):
            infer(bundle(*kind), [image], values | change)

    (tmp_path / "models").symlink_to(folder / "models")
    (tmp_path / "output").symlink_to(folder / "out")
    own = {"ckpt_dir": str(tmp_path / "models")}
    told = r"intensity_range is \[1, 2\] where it was .* in the training, by \S+run\.json; give the values"
    refused(told, intensity_range=[1, 2], **own)
    refused("class_names is .* where it was", class_names=options["class_names"][::-1], **own)
    refused(r"model\.pt: .* is of another network: .*; give the values of the training", class_names=["a"] * 7)
    refused(r"nowhere/model\.pt: no such file; run train\.json first", ckpt_dir="/nowhere")
    refused("has no value 'colour' to replace by 3", colour=3)
    refused("--spacing null: write None instead", spacing="null")
    refused("image a.png: give images without the name of a value", image="a.png")
    refused("device cuda:99 cannot be used", device="cuda:99")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("models", "output")] == []


@pytest.mark.parametrize(("first", "second"), [("a.nii", "a.nii.gz"), ("a.mha", "a.nrrd")])
def test_images_with_one_name_for_their_results_are_refused(finetuned, tmp_path, first, second):
    kind, _, options = finetuned
    if kind[0] == "segmentation":
        touch(tmp_path, first, second)
        with pytest.raises(InputError, match="would have one file for their results"):
            infer(bundle(*kind), [tmp_path / first, tmp_path / second], later(kind, options))


def test_the_command_takes_values_as_monai_does(finetuned, command, tmp_path):
    kind, _, options = finetuned
    image = str(min(Path(options["dataset_dir"], "images").iterdir()))
    words = [f"--{key}={value}".replace(" ", "") for key, value in later(kind, options).items()]
    status, output, _ = command("infer", str(bundle(*kind)), image, *words, "--output_dir=results")
    assert (status, output.splitlines()[-1]) == (0, "results holds the results")
    assert len([path for path in (tmp_path / "results").iterdir() if path.is_file()]) == 1
    status, _, _ = command("infer", str(bundle(*kind)), "nowhere.png", *words)
    assert status == "error: nowhere.png: no such file"
