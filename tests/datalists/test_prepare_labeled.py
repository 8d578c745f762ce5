import json
from hashlib import sha256

import numpy as np
import pytest
from labeled_files import LISTS, SHAPES, classify, drawn, segment
from scan_files import noise, refuses, write_image, write_nifti, write_series

from dira_monai import LabeledLists, ScanReader, prepare_labeled
from dira_monai.datalists import prepare_labeled as prepare_module
from dira_monai.datalists.io import write_datalist
from dira_monai.datalists.leakage import check_overlap, find_overlap
from dira_monai.datalists.splits import take_fraction
from dira_monai.datalists.unlabeled import make_datalist
from dira_monai.images import stock
from dira_monai.phantoms import chest as phantom
from dira_monai.utils.errors import InputError


def write_cases(root, spatial_dims=2, count=10, values=(0, 1)):
    """Images and label maps, and labels.csv with 0 and 1 in turn."""
    for index in range(count):
        image = noise(*SHAPES[spatial_dims], seed=index)
        write_nifti(root / "images" / f"case_{index}.nii.gz", image)
        write_nifti(root / "labels" / f"case_{index}.nii.gz", np.array(values, dtype=np.uint8)[image % len(values)])
    rows = "".join(f"images/case_{index}.nii.gz,{index % 2},p{index}\n" for index in range(count))
    (root / "labels.csv").write_text("file,label,patient\n" + rows)
    return root


def prepare(source, output, task="segmentation", **options):
    given = {"spatial_dims": 2, "in_channels": 1, "class_names": ["a", "b"], "seed": 0, "pictures_only": False}
    given |= options
    return prepare_labeled(None if source is None else str(source), str(output), task, **given)


@pytest.fixture
def cases(tmp_path):
    return write_cases(tmp_path / "data")


@pytest.fixture
def made(count_calls):
    """Grows when a list is made."""
    return count_calls(prepare_module, "make_labeled_datalist")


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_prepare_labeled_of_segmentation(tmp_path, capsys, spatial_dims):
    write_cases(tmp_path / "data", spatial_dims)
    data = prepare(tmp_path / "data", tmp_path / "out", spatial_dims=spatial_dims)
    written = json.loads((tmp_path / "out" / "datalist.json").read_text())
    for key in LISTS:
        assert [(entry["image"], entry["label"]) for entry in data[key]] == [
            (f"{tmp_path}/data/{entry['image']}", f"{tmp_path}/data/{entry['label']}") for entry in written[key]
        ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["images", "6", "2", "2"]
    assert lines[-1] == f"all of it: {tmp_path / 'out' / 'datalist.json'}"


def test_prepare_labeled_of_classification(cases, tmp_path, capsys):
    data = prepare(cases, tmp_path / "out", "classification", test_fraction=0.1)
    everything = [entry for key in LISTS for entry in data[key]]
    assert {entry["label"] == int(entry["image"][-8]) % 2 for entry in everything} == {True}
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    absent = {key: "ab"[1 - data[key][0]["label"]] for key in ("validation", "test")}  # each has one image
    assert warnings == [
        f"warning: {key} has no image of {name}: the metrics of this class are undefined there."
        for key, name in absent.items()
    ]


def test_prepare_labeled_reuses_its_list(cases, tmp_path, made):
    first = prepare(cases, tmp_path / "out", "classification")
    assert prepare(cases, tmp_path / "out", "classification") == first
    assert prepare(cases, tmp_path / "out", "classification", class_names=("a", "b")) == first
    assert len(made) == 1
    prepare(cases, tmp_path / "out", "classification", seed=1)
    prepare(cases, tmp_path / "out", "classification", seed=1, label_map={"7": "a"})
    prepare(cases, tmp_path / "out")
    assert len(made) == 4
    write_nifti(cases / "labels" / "case_3.nii.gz", noise(6, 8, seed=9, high=2))
    prepare(cases, tmp_path / "out")
    prepare(cases, tmp_path / "out", labels=str(cases / "labels"))
    prepare(cases, tmp_path / "out", labels=str(cases / "labels"))
    assert len(made) == 6
    prepare(cases, tmp_path / "out", "classification")
    (cases / "labels.csv").write_text((cases / "labels.csv").read_text().replace(",p9", ",p8"))
    changed = prepare(cases, tmp_path / "out", "classification")
    assert "p9" not in {entry["patient"] for key in LISTS for entry in changed[key]}
    (tmp_path / "out" / "datalist.json").write_text("{")
    prepare(cases, tmp_path / "out", "classification")
    assert len(made) == 9


@pytest.mark.parametrize("name", ["data/datalist.json", "lists/mine.json"])
def test_prepare_labeled_takes_a_given_list(cases, tmp_path, made, name):
    given = {
        "dataset_dir": str(cases),
        "training": [{"image": "images/case_0.nii.gz", "label": "labels/case_0.nii.gz"}],
        "validation": [{"image": "images/case_1.nii.gz", "label": "labels/case_1.nii.gz"}],
    }
    write_datalist(given, tmp_path / name)
    data = prepare(cases if name.startswith("data") else tmp_path / name, tmp_path / "out")
    assert data["training"] == [{key: f"{cases}/{file}" for key, file in given["training"][0].items()}]
    assert data["test"] == []
    assert made == []
    copy = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert copy["training"] == given["training"]
    assert copy["dataset_dir"] == str(cases)
    assert prepare(tmp_path / "out" / "datalist.json", tmp_path / "out") == data


@pytest.mark.parametrize("name", ["data/datalist.json", "lists/mine.json"])
def test_a_given_list_keeps_its_splits_and_says_so(cases, tmp_path, capsys, name):
    made = classify(cases, ["a", "b"], pictures_only=False)
    write_datalist(made, tmp_path / name)
    source = cases if name.startswith("data") else tmp_path / name
    data = prepare(source, tmp_path / "out", "classification", seed=5, test_fraction=0.5, patient="file")
    assert [len(data[key]) for key in LISTS] == [len(made[key]) for key in LISTS]
    line = f"{tmp_path / name}: its own splits and labels are used, on which labels, label_column, label_map, patient, "
    assert capsys.readouterr().out.startswith(line + "test_fraction, validation_fraction and seed have no effect\n")
    with pytest.raises(InputError, match="was made for exclude_patients_of None, expected 'boxes'; make the"):
        prepare(source, tmp_path / "out", "classification", exclude_patients_of="boxes")
    write_datalist(made | {"exclude_patients_of": "boxes"}, tmp_path / name)
    assert prepare(source, tmp_path / "out", "classification", exclude_patients_of="boxes") == data | {
        "exclude_patients_of": "boxes"
    }


CASE_2 = {"image": "images/case_2.nii.gz", "label": 1, "patient": "p2"}


def listed(cases, **changes):
    """A list for classification that is as it should be, but for the changes."""
    entry = {"image": "images/case_0.nii.gz", "label": 0, "patient": "p0"}
    other = {"image": "images/case_1.nii.gz", "label": 1, "patient": "p1"}
    return {"dataset_dir": str(cases), "training": [entry, other], "validation": [CASE_2], "test": [], **changes}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"training": []}, {}, "has an empty list 'training'"),
        ({"validation": None}, {}, "has no list 'validation'"),
        ({"test": None}, {}, "has no list 'test'"),
        ({"test": ["a.png"]}, {}, "has no 'image' in entry 0 of 'test'"),
        ({"test": [{"image": "a.png"}]}, {}, "has no 'label' in entry 0 of 'test'"),
        ({"test": [{"image": "a.png", "label": 0}]}, {}, r"a\.png, an image of .*, does not exist"),
        ({"test": [{"image": "a.png", "label": 0, "patient": "p2"}]}, {}, "1 patients in both validation and test: p2"),
        ({"test": [{"image": "a.png", "label": 2}]}, {}, "label 2 in entry 0 of 'test' where the number of a class is"),
        ({"test": [{"image": "a.png", "label": True}]}, {}, "has the label True in entry 0"),
        ({}, {"multi_label": True}, "label 0 in entry 0 of 'training' where a list of 0, 1 and null, one a class is"),
        ({"test": [{"image": "a", "label": [0, 2]}]}, {}, r"label \[0, 2\] in entry 0 of 'test'"),
        (
            {"test": [CASE_2 | {"patient": "p7"}]},
            {},
            r"has 1 images in both validation and test: images/case_2\.nii\.gz",
        ),
        ({}, {"task": "segmentation"}, "has the label 0 in entry 0 of 'training' where a file is needed; the 2 cl"),
        (
            {},
            {"pictures_only": True},
            r"images/case_0\.nii\.gz has another format: 2D fine-tuning reads PNG, JPEG, TIFF and BMP;",
        ),
        ({}, {"class_names": ["a", "b", "c"]}, r"no image of the class 'c' in training \(0 in validation, 0 in test\)"),
        ({"class_names": ["b", "a"]}, {}, r"was made for class_names \['b', 'a'\], expected \['a', 'b'\]"),
        ({"task": "segmentation"}, {}, "was made for task segmentation, expected classification"),
        ({"in_channels": 3}, {}, "was made for in_channels 3, expected 1"),
    ],
)
def test_given_lists_that_are_refused(cases, tmp_path, changes, options, message):
    write_datalist(listed(cases, **changes), tmp_path / "l.json")
    refuses(message, prepare, tmp_path / "l.json", tmp_path / "out", **{"task": "classification"} | options)


def test_a_given_list_of_volumes_may_hold_other_formats(cases, tmp_path):
    write_datalist(listed(cases), tmp_path / "l.json")
    prepare(tmp_path / "l.json", tmp_path / "out", "classification", pictures_only=True, spatial_dims=3)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_what_training_would_read_otherwise_is_left_out(cases, tmp_path, capsys, task):
    write_nifti(cases / "images/case_3.nii.gz", noise(6, 8, 1, seed=3))  # stock MONAI keeps the third axis
    data = prepare(cases, tmp_path / "out", task)
    assert len([entry for key in LISTS for entry in data[key]]) == 9
    (skipped,) = json.loads((tmp_path / "out/datalist.json").read_text())["skipped"]
    assert skipped["reason"].startswith(
        "images/case_3.nii.gz is 1 x 6 x 8 (channels first), and stock MONAI reads 1 x 6"
    )
    data = prepare(cases, tmp_path / "out", task, reader=ScanReader())
    assert len([entry for key in LISTS for entry in data[key]]) == 10


def test_a_given_list_is_read_once_where_it_does_not_say_by_what(cases, tmp_path, count_calls):
    read = count_calls(stock, "read_image")
    labels = {f"{key}s/case_{index}.nii.gz" for index in range(10) for key in ("image", "label")}
    prepare(cases, tmp_path / "made", "segmentation")
    assert len(read) == len(labels)
    prepare(tmp_path / "made/datalist.json", tmp_path / "out", "segmentation")
    assert len(read) == len(labels)  # its files have been compared
    own = json.loads((tmp_path / "made/datalist.json").read_text())
    del own["read_by"]
    write_datalist(own, tmp_path / "own.json")
    for _ in range(2):
        prepare(tmp_path / "own.json", tmp_path / "other", "segmentation")
        assert len(read) == 2 * len(labels)
    write_nifti(cases / "labels/case_5.nii.gz", np.ones((6, 8, 1), np.uint8))
    words = r"own\.json: labels/case_5\.nii\.gz is 1 x 6 x 8 .* give --label_reader .* So do 1 of its 10 entries\.$"
    refuses(words, prepare, tmp_path / "own.json", tmp_path / "new", "segmentation")
    prepare(tmp_path / "own.json", tmp_path / "new", "segmentation", label_reader="dira_monai.ScanReader")


def test_lists_for_pretraining_and_missing_ones_are_refused(cases, tmp_path):
    write_datalist(make_datalist(cases / "images"), cases / "datalist.json")
    refuses("has no 'label' in entry 0 of 'training'", prepare, cases, tmp_path / "out")
    for name in ("none", "none.json"):
        refuses(f"{name} does not exist", prepare, tmp_path / name, tmp_path / "out")
    words = "task must be segmentation or classification, got 'detection'"
    refuses(words, prepare, cases, tmp_path / "out", "detection")


def test_states_of_several_labels(cases, tmp_path):
    entries = [{"image": f"images/case_{n}.nii.gz", "label": [n % 2, None], "patient": n} for n in range(4)]
    entries[1]["label"] = [1, 1]
    write_datalist(listed(cases, training=entries[:2], validation=entries[2:]), tmp_path / "l.json")
    data = prepare(tmp_path / "l.json", tmp_path / "out", "classification", multi_label=True)
    assert [entry["label"] for entry in data["training"]] == [[0, None], [1, 1]]


def test_lists_are_prepared_once_when_one_is_asked_for(monkeypatch):
    calls, made = [], {"training": [{"image": "a.nii"}], "validation": [], "test": []}
    monkeypatch.setattr(prepare_module, "prepare_labeled", lambda **words: calls.append(words) or made)
    lists = LabeledLists(dataset_dir="d", seed=1)
    assert calls == []
    assert (lists["training"], lists["test"]) == ([{"image": "a.nii"}], [])
    assert calls == [{"dataset_dir": "d", "seed": 1}]


@pytest.mark.parametrize("task", ["segmentation", "classification"])
@pytest.mark.parametrize(("spatial_dims", "kind"), [(2, "xray"), (3, "ct")])
def test_prepare_labeled_makes_phantoms_once(tmp_path, monkeypatch, capsys, spatial_dims, kind, task):
    calls = []

    def write_phantoms(directory, kind, count, seed):
        calls.append((kind, seed))
        write_cases(directory, spatial_dims, count=6)
        write_nifti(directory / "nodules" / "case_0.nii.gz", noise(6, 8, high=2))

    monkeypatch.setattr(phantom, "write_phantoms", write_phantoms)
    first = prepare("", tmp_path, task, spatial_dims=spatial_dims, seed=3)
    assert "synthetic" in capsys.readouterr().out
    assert prepare(None, tmp_path, task, spatial_dims=spatial_dims, seed=3) == first
    assert capsys.readouterr().out.startswith("No dataset_dir is given: using the synthetic phantoms in")
    assert calls == [(kind, 3)]
    assert sum(len(first[key]) for key in LISTS) == 6
    prepare(None, tmp_path, task, spatial_dims=spatial_dims, seed=4)
    assert calls == [(kind, 3), (kind, 4)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ct", {"class_names": ["background", "lung", "heart", "bone"]}),
        ("xray", {"class_names": ["background", "lung"], "label_values": [0, 255]}),
        ("xray", {"class_names": ["background", "lung"], "label_threshold": 127}),
    ],
)
def test_real_phantoms_have_these_classes(tmp_path, monkeypatch, kind, options):
    small = {"shape": (28, 24, 20), "spacing": 12.0} if kind == "ct" else {"size": 48}
    original = getattr(phantom, f"chest_{kind}")
    monkeypatch.setattr(phantom, f"chest_{kind}", lambda seed: original(seed, **small))
    phantom.write_phantoms(tmp_path, kind=kind, count=4)
    made = segment(tmp_path, pictures_only=True, strict=True, **options)
    assert all(set(entry["holds"]) == {1} for key in LISTS for entry in made[key])
    numbers = (tmp_path / "labels.csv").read_text().splitlines()[1:]
    made = classify(tmp_path, ["other", "nodule"], strict=True)
    found = {entry["image"]: entry["label"] for key in LISTS for entry in made[key]}
    assert found == {line.split(",")[0]: int(line.split(",")[1]) for line in numbers}


@pytest.mark.parametrize("fraction", [0.07, 0.1, 0.29, 0.5, 0.99])
def test_take_fraction_of_patients(fraction):
    training = [{"image": f"{n}.png", "label": "x", "patient": f"p{n // 2:03d}"} for n in range(200)]
    whole = {"task": "segmentation", "training": training, "validation": [1], "test": [2]}
    part, lines = take_fraction(whole, fraction, 5)
    chosen = drawn([f"p{n:03d}" for n in range(100)], fraction, 5, "label")
    count = len(chosen)
    assert part["training"] == [entry for entry in training if entry["patient"] in chosen]
    assert (part["validation"], part["test"]) == ([1], [2])
    assert len(whole["training"]) == 200
    assert lines == [
        f"label_fraction {fraction:g}: {count} of 100 training patients, {2 * count} of 200 training images "
        "(label_seed 5)"
    ]


def test_take_fraction_takes_patients_who_share_an_image_together():
    entries = [{"image": f"{i}.png", "patient": f"p{i}", "group": f"p{i // 2 * 2}", "label": 0} for i in range(40)]
    part, lines = take_fraction({"task": "classification", "class_names": ["a", "b"], "training": entries}, 0.5, 0)
    groups = drawn({entry["group"] for entry in entries}, 0.5, 0, "label")
    assert {entry["patient"] for entry in part["training"]} == {f"p{int(g[1:]) + k}" for g in groups for k in (0, 1)}
    assert f"{2 * len(groups)} of 40 training patients" in lines[0]


@pytest.mark.parametrize("multi_label", [False, True])
def test_take_fraction_keeps_every_class_and_is_nested(multi_label):
    def entry(number):
        kind = 1 if number in (3, 17) else 2 if number in (5, 11) else 0
        return {"image": f"{number:02d}", "label": [int(kind == n) for n in range(3)] if multi_label else kind}

    whole = {"task": "classification", "class_names": ["a", "b", "c"], "training": [entry(n) for n in range(20)]}
    everyone = [f"{n:02d}" for n in range(20)]
    order = sorted(everyone, key=lambda name: sha256(f"0 label {name}".encode()).digest())
    first = {order[0], *(next(name for name in order if name in rare) for rare in (("03", "17"), ("05", "11")))}
    smaller: set[str] = set()
    for fraction in (0.01, 0.05, 0.2, 0.4, 0.7, 1):
        part, lines = take_fraction(whole, fraction, 0)
        names = {entry["image"] for entry in part["training"]}
        assert smaller <= names
        assert names == drawn(everyone, fraction, 0, "label") | (first if fraction < 1 else set()) | {order[0]}
        smaller = names
        if fraction == 0.01:
            assert names == first
            assert [line.split(", the first")[0] for line in lines[1:]] == [
                f"added {name}" for rare in (("03", "17"), ("05", "11")) for name in first & {*rare} - {order[0]}
            ]


def test_a_class_that_a_part_of_the_labels_lacks_is_told(tmp_path, capsys):
    write_cases(tmp_path / "data", count=12)
    rows = "".join(f"case_{n},p{n},{'train' if n < 8 else 'val' if n < 10 else 'test'}\n" for n in range(12))
    (tmp_path / "p.csv").write_text("file,patient,split\n" + rows)
    first = [int(name[1:]) for name in drawn([f"p{n}" for n in range(8)], 0.25, 0, "label")]
    other = next(n for n in range(8) if n not in first)
    for number in range(8):
        if number != other:
            write_nifti(tmp_path / "data" / "labels" / f"case_{number}.nii.gz", np.zeros((6, 8), np.uint8))
    options = {"patient": str(tmp_path / "p.csv"), "label_fraction": 0.25}
    part = prepare(tmp_path / "data", tmp_path / "out", **options)
    assert {entry["patient"] for entry in part["training"]} == {f"p{n}" for n in first}
    line = "warning: training has no image of b: it cannot be learned; try another label_seed."
    assert line in capsys.readouterr().out.splitlines()
    prepare(tmp_path / "data", tmp_path / "out", patient=str(tmp_path / "p.csv"))
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("fraction", [0, 1.1, -0.5, "all", True])
def test_label_fraction_out_of_range(cases, tmp_path, fraction):
    with pytest.raises(InputError, match=f"label_fraction must be above 0 and at most 1, got {fraction!r}"):
        prepare(cases, tmp_path / "out", label_fraction=fraction)


def test_the_file_holds_all_labels(cases, tmp_path, capsys):
    part = prepare(cases, tmp_path / "out", label_fraction=0.3, label_seed=2)
    written = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert [len(part[key]) for key in LISTS] == [2, 2, 2]
    assert [len(written[key]) for key in LISTS] == [6, 2, 2]
    assert "label_fraction 0.3: 2 of 6 training patients" in capsys.readouterr().out


@pytest.fixture
def overlapping(cases):
    """A list whose test patients are p8 and p9, and a function that writes a list of pre-training."""
    rows = "".join(f"case_{n},{n % 2},p{n},{'test' if n > 7 else 'train'}\n" for n in range(10))
    (cases / "labels.csv").write_text("file,label,patient,split\n" + rows)

    def pretrain(images, patients, dataset_dir=cases, name="pre.json", rule=None):
        entries = [{"image": image, "patient": who} for image, who in zip(images, patients, strict=True)]
        listed = {"dataset_dir": str(dataset_dir), "training": entries[:-1], "validation": entries[-1:]}
        write_datalist(listed | ({"patient_rule": rule} if rule else {}), cases.parent / name)
        return str(cases.parent / name)

    return classify(cases, ["a", "b"], pictures_only=False), cases.parent / "own.json", pretrain


def test_pretraining_on_test_images_is_refused(overlapping, cases, tmp_path, capsys):
    _, _, pretrain = overlapping
    pre = pretrain(["case_0.nii.gz", "case_9.nii.gz", "case_1.nii.gz"], "xyz", cases / "images")
    words = r"1 of 2 test images or their patients are in .*pre\.json: .*case_9\.nii\.gz; pre-train"
    refuses(words, prepare, cases, tmp_path / "out", "classification", pretraining_list=pre)
    prepare(cases, tmp_path / "out", "classification", pretraining_list=pre, allow_overlap=True)
    assert "warning: 1 of 2 test images or their patients are in" in capsys.readouterr().out
    pre = pretrain(["case_0.nii.gz", "case_1.nii.gz"], "xy", cases / "images")
    prepare(cases, tmp_path / "out", "classification", pretraining_list=pre)
    with pytest.raises(InputError, match=r"the datalist none\.json does not exist"):
        prepare(cases, tmp_path / "out", "classification", pretraining_list="none.json")


def test_overlap_of_files_and_patients(overlapping, cases, tmp_path):
    own, path, pretrain = overlapping
    for folder in (cases, cases.parent, cases / "images", tmp_path / "no_such_folder"):
        assert find_overlap(own, path, pretrain("ab", ["p1", "p8"], folder))[0] == ["images/case_8.nii.gz"]
    nine, other = "images/case_9.nii.gz", tmp_path / "other"
    other.mkdir()
    (other / "link.nii.gz").symlink_to(cases / nine)
    for image, seen in (
        ("a", []),
        ("link.nii.gz", ["images/case_9.nii.gz"]),
        (["z", str(cases / nine)], ["images/case_9.nii.gz"]),
    ):
        assert find_overlap(own, path, pretrain([image, "b"], ["p1", "p8"], other))[0] == seen
    assert check_overlap(own, path, pretrain(["a", "b"], ["p1", "p2"], rule="labels.csv"), False) == []


def test_patients_that_cannot_be_compared_are_told(overlapping, cases, tmp_path, capsys):
    own, path, pretrain = overlapping

    def warning(listed):
        return check_overlap(own, path, listed, False)

    begin = "warning: patients could not be compared, only images: "
    names = ["a", "b"], ["q1", "q2"]
    assert warning(pretrain(*names, rule="labels.csv")) == []
    assert warning(pretrain(*names, rule=str(cases / "labels.csv"))) == []  # the same table, named from /
    assert warning(pretrain(*names, cases / "images", rule=str(cases / "labels.csv"))) == []
    assert warning(pretrain(*names, rule="file")) == [f"{begin}patients are by labels.csv here and by file there."]
    assert warning(pretrain(*names)) == [f"{begin}patients are by labels.csv here and by an unknown rule there."]
    (tmp_path / "other").mkdir()
    unrelated = pretrain(*names, tmp_path / "other", rule="labels.csv")
    assert warning(unrelated) == [f"{begin}{cases} and {tmp_path / 'other'} are unrelated folders."]
    del own["test"][0]["patient"]
    assert warning(pretrain(*names, rule="labels.csv")) == [f"{begin}not all images have a patient."]
    own["test"] = []
    assert warning(pretrain(*names)) == []
    prepare(cases, tmp_path / "out", "classification", pretraining_list=pretrain(*names, rule="file"))
    assert f"{begin}patients are by labels.csv here and by file there." in capsys.readouterr().out.splitlines()


def test_a_series_is_found_again_in_a_list_of_its_files(tmp_path):
    for index in range(4):
        write_series(tmp_path / "images" / f"p{index}", noise(3, 4, 5), series=f"1.{index}", patient=f"p{index}")
    rows = "".join(f"images/p{n},{n % 2},{('train', 'train', 'val', 'test')[n]}\n" for n in range(4))
    (tmp_path / "labels.csv").write_text("file,label,split\n" + rows)
    own = classify(tmp_path, ["a", "b"])
    assert [entry["image"] for entry in own["test"]] == ["images/p3"]
    seen = make_datalist(tmp_path / "images")
    for key in ("training", "validation"):
        assert all(isinstance(entry["image"], list) for entry in seen[key])
        for entry in seen[key]:
            entry["patient"] += " of another list"
    write_datalist(seen, tmp_path / "pre.json")
    assert find_overlap(own, tmp_path / "own.json", tmp_path / "pre.json") == (["images/p3"], "")


def test_pretrained_weights_without_a_list_are_told(cases, tmp_path, overlapping, capsys):
    _, _, pretrain = overlapping
    line = (
        "warning: pretrained weights without pretraining_list: "
        "whether the test images were in the pre-training is not checked"
    )
    for options, warned in (
        ({}, False),
        ({"pretrained": "model.pt"}, True),
        ({"pretrained": "model.pt", "pretraining_list": pretrain(["a", "b"], "xy")}, False),
    ):
        prepare(cases, tmp_path / "out", "classification", **options)
        assert (line in capsys.readouterr().out.splitlines()) == warned


def test_the_first_of_several_processes_prepares(cases, tmp_path, distribute, capsys):
    sent = []
    distribute(0, lambda box: sent.append(box[0]))
    assert prepare(cases, tmp_path / "out") == sent[0]
    capsys.readouterr()
    distribute(1, lambda box: box.__setitem__(0, sent[0]))
    assert prepare(tmp_path / "none", tmp_path / "out") is sent[0]
    assert capsys.readouterr().out == ""


def test_command_of_segmentation(tmp_path, command):
    write_cases(tmp_path / "data", values=(0, 255))
    words = ["data", "--task=segmentation", "--class_names=[background, 2]", "--output=lists/l.json"]
    words.append("--pictures_only=False")
    status, _, errors = command("labeled", *words)
    assert status == (
        "error: labels/case_0.nii.gz holds the label values 0, 255 where 2 classes allow 0 to 1; "
        'give --label_threshold 127 or --label_values "[0, 255]".'
    )
    assert not (tmp_path / "lists").exists()
    status, output, errors = command("labeled", *words, "--label_values=[0, 255]")
    assert (status, errors) == (0, "")
    first = [line.split()[0] for line in output.splitlines()]
    assert first == ["training", "images", "patients", "background", "2", "0", "drawn", "lists/l.json"]
    written = json.loads((tmp_path / "lists" / "l.json").read_text())
    assert [len(written[key]) for key in LISTS] == [6, 2, 2]


def test_command_of_classification(cases, tmp_path, command):
    words = ["data", "--task", "classification", "--class_names", "[a, b]", "--label_map", "{0: a, 1: b}"]
    words.append("--pictures_only=False")
    status, output, errors = command("labeled", *words, "--seed=3", "--test_fraction=0.5")
    assert (status, errors) == (0, "")
    assert output.endswith("datalist.json is written\n")
    made = json.loads((tmp_path / "datalist.json").read_text())
    options = {"seed": 3, "test_fraction": 0.5, "pictures_only": False}
    assert made["test"] == classify(cases, ["a", "b"], **options)["test"]
    write_image(tmp_path / "data" / "images" / "more.png", noise(8, 6))
    write_datalist(made, tmp_path / "pre.json")
    status, _, _ = command("labeled", *words, "--test_fraction=0.6", "--pretraining_list=pre.json", "--output=new.json")
    assert "test images or their patients are in pre.json" in status
    status, _, _ = command("labeled", "data", "--task=classification", "--class_names=[ab]")
    assert status == "error: class_names must be a list of at least 2 different names, got ['ab']."
    assert not (tmp_path / "new.json").exists()
