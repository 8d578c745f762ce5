"""The list of a run: who was trained on stays for training when cases come in, and is named where it is tested."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from labeled_files import LISTS, SHAPES, classify
from PIL import Image
from scan_files import noise, read, refuses, write_image, write_nifti, write_series

from dira_monai.data.trained_on import evaluation_list, find_run_list, tell_seen
from dira_monai.datalists.io import write_datalist
from dira_monai.datalists.prepare import prepare_data
from dira_monai.datalists.prepare_labeled import prepare_labeled
from dira_monai.datalists.unlabeled import make_datalist
from dira_monai.images.facts import measure_image


def add(root, numbers, spatial_dims=2):
    for number in numbers:
        image = noise(*SHAPES[spatial_dims], seed=number)
        write_nifti(root / "images" / f"c{number:02d}.nii.gz", image)
        write_nifti(root / "labels" / f"c{number:02d}.nii.gz", (image > 100).astype("uint8"))
    return root


def prepare(kind, root, output, spatial_dims=2, **options):
    """The patients of each list of a fine-tuning or a pre-training."""
    options = {"spatial_dims": spatial_dims, "in_channels": 1, "seed": 0} | options
    if kind == "labeled":
        options |= {"task": "segmentation", "class_names": ["a", "b"], "pictures_only": False}
        made = prepare_labeled(str(root), str(output), **options)
    else:
        made = prepare_data(str(root), str(output), **options)
    return {entry["patient"]: key for key in LISTS for entry in made.get(key, [])}


KINDS = [(kind, dims) for kind in ("labeled", "unlabeled") for dims in (2, 3)]


@pytest.mark.parametrize(("kind", "dims"), KINDS)
def test_patients_keep_their_places_when_cases_come_in(tmp_path, capsys, kind, dims):
    root, out = add(tmp_path / "data", range(12), dims), tmp_path / "out"
    first = prepare(kind, root, out, dims)
    written = json.loads((out / "datalist.json").read_text())
    last = next(name for name in LISTS[::-1] if written.get(name))
    moved = written["training"].pop(0)  # as another way of drawing has left it
    written[last].append(moved)
    (out / "datalist.json").write_text(json.dumps(written))
    first[moved["patient"]] = last
    add(root, range(12, 17), dims)
    capsys.readouterr()
    assert prepare(kind, root, out, dims, resume=True) == first
    assert "it goes on with its list as it is, without 5 images that have come in\n" in capsys.readouterr().out
    (root / "images/c11.nii.gz").unlink()
    del first["c11"]
    again = prepare(kind, root, out, dims)
    assert {name: key for name, key in again.items() if name in first} == first
    assert len(again) == 16
    new = [sum(again[f"c{number}"] == key for number in range(12, 17)) for key in LISTS]
    counts = ", ".join(f"{n} for {key}" for n, key in zip(new, LISTS[: 3 if kind == "labeled" else 2], strict=False))
    line = f"{out}/datalist.json: 11 patients keep their places, 5 are new ({counts}), 1 gone"
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("kind", ["labeled", "unlabeled"])
def test_another_seed_draws_anew_unless_a_training_goes_on(tmp_path, capsys, kind):
    root, out = add(tmp_path / "data", range(12)), tmp_path / "out"
    first = prepare(kind, root, out)
    assert prepare(kind, root, out, seed=5, resume=True) == first  # another seed of the order, say
    assert prepare(kind, root, out, seed=6) == prepare(kind, root, tmp_path / "other", seed=6) != first
    assert f"{out}/datalist.json: its patients are drawn anew, for another seed" in capsys.readouterr().out


def test_splits_of_a_table_are_followed_but_not_into_a_training_that_goes_on(tmp_path):
    root, out = add(tmp_path / "data", range(12)), tmp_path / "out"
    table = tmp_path / "p.csv"

    def write(test, joined=""):
        rows = [f"c{n:02d},{joined if n == 3 and joined else f'p{n}'},{'test' if n in test else ''}" for n in range(12)]
        table.write_text("\n".join(["file,patient,split", *rows]))

    write({0, 1})
    first = prepare("labeled", root, out, patient=str(table))
    assert {name for name, key in first.items() if key == "test"} == {"p0", "p1"}
    trained = next(name for name, key in first.items() if key == "training")
    write({0, 1, int(trained[1:])})
    options = {"patient": str(table)}
    message = rf"have 1 patients in other lists than .*datalist\.json, .*: {trained} \(training, now test\); correct"
    assert prepare("labeled", root, out, resume=True, **options) == first
    with pytest.raises(ValueError, match=message):
        prepare("labeled", root, out, resume=True, seed=1, **options)
    second = prepare("labeled", root, out, **options)
    assert second == first | {trained: "test"}
    other = next(name for name, key in second.items() if key == "validation")
    mine = next(name for name, key in second.items() if key == "training" and name != "p3")
    write({0, 1, int(trained[1:])}, joined=other if second["p3"] == "training" else mine)
    with pytest.raises(ValueError, match=r"have 1 patients in other lists .* \(training and validation, now"):
        prepare("labeled", root, out, resume=True, seed=1, **options)


@pytest.mark.parametrize("kind", ["labeled", "unlabeled"])
def test_another_given_list_moves_nobody_of_a_training_that_goes_on(tmp_path, kind):
    root, out, given = add(tmp_path / "data", range(12)), tmp_path / "out", tmp_path / "given.json"
    prepare(kind, root, tmp_path / "made")
    made = json.loads((tmp_path / "made/datalist.json").read_text())
    write_datalist(made, given)
    prepare(kind, given, out)
    moved = made["training"].pop(0)
    made["validation"].append(moved)
    write_datalist(made, given)
    with pytest.raises(ValueError, match=rf"given\.json has 1 patients in other lists .*: {moved['patient']} \("):
        prepare(kind, given, out, resume=True)
    assert prepare(kind, given, out)[moved["patient"]] == "validation"


def test_an_evaluation_takes_the_list_of_its_run_and_leaves_it(tmp_path, capsys):
    root, run = add(tmp_path / "data", range(12)), tmp_path / "run"
    prepare("unlabeled", root, run)
    before = (run / "datalist.json").read_bytes()
    add(root, range(12, 15))
    options = {"run_list": str(run / "datalist.json"), "output_dir": str(run / "evaluation")}
    options |= {"spatial_dims": 2, "in_channels": 1, "seed": 0}
    own = evaluation_list(str(root), **options)
    assert own == evaluation_list(None, **options) == evaluation_list(str(run / "datalist.json"), **options)
    assert len(own["training"] + own["validation"]) == 12
    capsys.readouterr()
    others = evaluation_list(str(root / "images"), **options | {"validation_fraction": 0.9})
    trained = {e["patient"] for e in own["training"]} & {e["patient"] for e in others["validation"]}
    assert f"warning: {len(trained)} of {len(others['validation'])} images are, or are of patients, in training of" in (
        capsys.readouterr().out
    )
    assert (run / "datalist.json").read_bytes() == before
    refuses("does not exist", lambda _: evaluation_list(None, **options | {"run_list": str(run / "no.json")}), None)


def test_who_was_trained_on_is_named(tmp_path, capsys):
    for person in range(6):
        for visit in "ab":
            write_image(
                tmp_path / "data" / f"p{person}" / f"{visit}.png", noise(6, 8, seed=2 * person + (visit == "b"))
            )
    write_datalist(made := make_datalist(tmp_path / "data"), tmp_path / "list.json")
    patients = {key: sorted({entry["patient"] for entry in made[key]}) for key in LISTS[:2]}
    one, other = patients["training"][0], patients["validation"][0]
    new = write_image(tmp_path / "data" / one / "new.png", noise(6, 8, seed=20))
    images = [str(tmp_path / "data" / one / "a.png"), str(new), str(tmp_path / "data" / other / "a.png")]
    line = tell_seen(images, tmp_path / "list.json")
    assert line == (
        "warning: 2 of 3 images are, or are of patients, in training of "
        f"{tmp_path}/list.json: {one}/a.png, {one}/new.png"
    )
    assert capsys.readouterr().out == f"{line}\n"
    elsewhere = write_image(tmp_path / "far" / one / "a.png", noise(6, 8, seed=21))  # perhaps another person
    assert tell_seen([str(elsewhere)], tmp_path / "list.json") == tell_seen(images, None) == ""
    trained = tmp_path / "data" / one / "a.png"
    shutil.copy(trained, tmp_path / "far" / "renamed.png")
    Image.open(trained).save(tmp_path / "far" / "again.bmp")
    tested = [str(tmp_path / "far" / name) for name in ("renamed.png", "again.bmp")]
    line = tell_seen([*tested, str(elsewhere)], tmp_path / "list.json")
    assert line.startswith("warning: 2 of 3 images")
    assert line.endswith(": renamed.png, again.bmp")
    measured = [{"image": file, **measure_image(file)} for file in tested]
    assert tell_seen(measured, tmp_path / "list.json").endswith(": renamed.png, again.bmp")
    (tmp_path / "list.json").write_text("{}")
    assert "is not known: " in tell_seen(images, tmp_path / "list.json")


def test_a_series_that_was_trained_on_is_named_by_its_folder(tmp_path):
    for index in range(3):
        write_series(tmp_path / "scans" / str(index), noise(3, 4, 5), series=f"1.{index}", patient=f"p{index}")
    write_datalist(made := make_datalist(tmp_path / "scans"), tmp_path / "list.json")
    trained = made["training"][0]["patient"]
    write_series(tmp_path / "far" / "again", noise(3, 4, 5, seed=1), series="1.9", patient=trained)
    write_series(tmp_path / "far" / "new", noise(3, 4, 5, seed=2), series="1.8", patient="other")
    line = tell_seen([str(tmp_path / "far" / name) for name in ("again", "new")], tmp_path / "list.json")
    assert line.startswith("warning: 1 of 2 images are")
    assert "again/" in line


@pytest.mark.parametrize("place", ["models", "output/../models", "bundle/models", "own"])
def test_the_list_of_weights_is_found_where_a_run_leaves_it(tmp_path, place):
    (tmp_path / "output").mkdir()
    home = tmp_path / ("output" if place.startswith("output") else ".")
    (home / "datalist.json").write_text("{}")
    weights = tmp_path / place / "model.pt"
    found = find_run_list(weights, *([tmp_path] if place == "own" else []))
    assert found is not None
    assert found.samefile(home / "datalist.json")
    assert find_run_list(tmp_path / "a/b/c/model.pt") is None


def test_classes_may_change_while_patients_stay(tmp_path):
    root = add(tmp_path / "data", range(12))
    text = "file,label\n" + "".join(f"c{n:02d}.nii.gz,{'ab'[n % 2]}\n" for n in range(12))
    (root / "labels.csv").write_text(text)
    made = classify(root, ["a", "b"], pictures_only=False)
    write_datalist(made | {"seed": made["seed"]}, tmp_path / "out/datalist.json")
    options = {"spatial_dims": 2, "in_channels": 1, "seed": 0, "pictures_only": False}
    again = prepare_labeled(str(root), str(tmp_path / "out"), "classification", class_names=["b", "a"], **options)
    assert [[e["patient"] for e in again[key]] for key in LISTS] == [[e["patient"] for e in made[key]] for key in LISTS]


@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "dcm"])
def test_a_volume_that_was_trained_on_is_named_in_every_format(tmp_path, suffix):
    """Copies as dcm2niix writes them, with rows turned around, and their like by ITK; or another series."""
    for index in range(4):
        voxels = noise(3, 4, 5, seed=index)
        write_series(tmp_path / f"scans/{index}", voxels, series=f"1.{index}", patient=f"p{index}")
    write_datalist(made := make_datalist(tmp_path / "scans"), tmp_path / "list.json")
    trained, spared = (int(made[key][0]["patient"][1:]) for key in LISTS[:2])
    for name, index in (("again", trained), ("new", spared)):
        array, meta = read(tmp_path / f"scans/{index}")
        image = nib.Nifti1Image(array.astype(np.int16), meta["affine"]).as_reoriented([[0, 1], [1, -1], [2, 1]])
        file = tmp_path / f"far/{name}.{suffix}"
        file.parent.mkdir(exist_ok=True)
        if suffix == "dcm":
            write_series(file, noise(3, 4, 5, seed=index), series="1.9", patient="other")
        elif suffix == "mha":
            nib.save(image, tmp_path / "x.nii")
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / "x.nii")), str(file))
        else:
            nib.save(image, file)
    line = tell_seen([*map(str, sorted((tmp_path / "far").iterdir()))], tmp_path / "list.json")
    assert line.startswith("warning: 1 of 2 images are")
    assert "again" in line
