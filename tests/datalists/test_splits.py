"""Training, validation and test by patient: drawn, of a table, of folders."""

import pytest
from labeled_files import LISTS, classify, drawn, entries, images_of, reasons, segment, ten, write_maps, write_table
from scan_files import noise, refuses, write_image, write_nifti

from dira_monai.datalists.splits import draw_patients, split_entries, take_fraction
from dira_monai.datalists.summary import describe_labeled
from dira_monai.datalists.unlabeled import make_datalist
from dira_monai.utils.errors import InputError


def test_further_patients_move_no_other_one():
    everyone = [f"p{index}" for index in range(400)]
    for purpose, fraction in (("test", 0.2), ("validation", 0.1), ("label", 0.05)):
        before: set[str] = set()
        for count in (60, 61, 100, 400):
            chosen = draw_patients(everyone[:count], fraction, 3, purpose)
            assert chosen == drawn(everyone[:count], fraction, 3, purpose)
            assert chosen >= before
            before = chosen
        assert abs(len(before) - 400 * fraction) < 4 * (400 * fraction * (1 - fraction)) ** 0.5
        assert before != draw_patients(everyone, fraction, 4, purpose)
        assert before <= draw_patients(everyone, fraction + 0.1, 3, purpose)
    kept = [{"image": name, "label": "x"} for name in everyone]
    parts = [take_fraction({"task": "segmentation", "training": kept[:n]}, 0.1, 0)[0]["training"] for n in (200, 400)]
    assert [entry for entry in parts[1] if entry in kept[:200]] == parts[0]


@pytest.mark.parametrize("seed", range(20))
def test_no_list_of_few_patients_stays_empty(seed):
    rows = [({"patient": f"p{index}"}, "") for index in range(3)]
    lists = split_entries(rows, 0.9, 0.01, seed)
    assert [len(lists[key]) for key in LISTS] == [1, 1, 1]


def test_splits_are_drawn_by_patient(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,patient", lambda index: f",p{index // 2}")
    root = write_table(tmp_path, text, names)
    everyone = [f"p{index}" for index in range(5)]
    for seed in (1, 2, 3):
        made = classify(root, test_fraction=0.4, validation_fraction=0.3, seed=seed)
        test = drawn(everyone, 0.4, seed, "test")
        validation = drawn({*everyone} - test, 0.3, seed, "validation")
        assert [{entry["patient"] for entry in made[key]} for key in LISTS] == [
            {*everyone} - test - validation,
            validation,
            test,
        ]
    assert made["patient_rule"] == "labels.csv"
    assert classify(root, patient="file")["training"][0]["patient"].startswith("x")


@pytest.mark.parametrize("place", ["data", "data/images", "elsewhere"])
def test_the_rule_of_a_table_says_where_it_lies(tmp_path, monkeypatch, place):
    text, names = ten(["healthy", "ill"], "file,label,patient", lambda index: f",p{index // 2}")
    root, table = write_table(tmp_path / "data", text, names), tmp_path / place / "p.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text(text)
    monkeypatch.chdir(table.parent)
    inside = {"data": "p.csv", "data/images": "images/p.csv", "elsewhere": str(table)}[place]
    assert classify(root, patient="p.csv")["patient_rule"] == inside  # given from the working directory
    assert classify(root, labels=str(table))["patient_rule"] == inside
    assert classify(root / "images")["patient_rule"] == str(root / "labels.csv")  # one folder above


def test_splits_of_the_table(tmp_path):
    split = ["train", "val", "Test", "boxes", "", "train", "testing", "boxes", "validation", "train"]
    text, names = ten(["healthy", "ill"], "file,label,patient,split", lambda index: f",p{index},{split[index]}")
    made = classify(write_table(tmp_path, text.replace("x9.png,ill,p9", "x9.png,ill,p7"), names))
    assert [[entry["image"][8] for entry in made[key]] for key in LISTS] == [
        ["0", "4", "5", "9"],
        ["1", "8"],
        ["2", "6"],
    ]
    assert made["excluded"] == {"boxes": 2}
    made = classify(tmp_path, exclude_patients_of="boxes")
    assert [entry["image"][8] for entry in made["training"]] == ["0", "4", "5"]
    assert made["excluded"] == {"boxes": 2, "of patients of boxes": 1}
    with pytest.raises(InputError, match=r"must be a split of the data \(, Test, boxes, .*\), got 'box'"):
        classify(tmp_path, exclude_patients_of="box")


@pytest.mark.parametrize(("given", "lacks"), [("test", "validation"), ("val", "test")])
def test_what_the_table_lacks_is_drawn_from_training(tmp_path, given, lacks):
    text, names = ten(["healthy", "ill"], "file,label,split", lambda index: f",{given if index < 2 else 'train'}")
    made = classify(write_table(tmp_path, text, names), **{f"{lacks}_fraction": 0.5})
    everyone = {f"x{index}" for index in range(2, 10)}
    chosen = drawn(everyone, 0.5, 0, lacks)
    patients = {key: {entry["patient"] for entry in made[key]} for key in LISTS}
    other = {"test": "test", "val": "validation"}[given]
    assert patients == {"training": everyone - chosen, other: {"x0", "x1"}, lacks: chosen}
    told = f"drawn from the training patients: {lacks} {len(chosen)} of 8 ({lacks}_fraction 0.5)"
    assert describe_labeled(made).endswith(told)


@pytest.mark.parametrize("seed", range(8))
def test_few_patients_leave_no_list_empty_and_far_draws_are_told(tmp_path, seed):
    made = segment(write_maps(tmp_path, 3, 6), test_fraction=0.34, validation_fraction=0.34, seed=seed)
    counts = {key: len(made[key]) for key in LISTS}
    assert min(counts.values()) >= 1
    line = describe_labeled(made).splitlines()[-1]
    assert f"test {counts['test']} of 6 (test_fraction 0.34" in line
    assert ("another --seed" in line.split(", validation")[0]) == (counts["test"] not in (2, 3))  # 2.04 are wanted


def test_no_test_is_drawn_of_nothing(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,split", lambda index: ",val" if index < 2 else ",train")
    without = classify(write_table(tmp_path, text, names), test_fraction=0)
    assert [len(without[key]) for key in LISTS] == [8, 2, 0]
    assert "drawn" not in describe_labeled(without)
    (tmp_path / "labels.csv").write_text("file,label,split\nx0.png,ill,val\nx1.png,ill,train\n")
    refuses("training and test need 2 patients, got 1: x1; give another patient rule, or", classify, tmp_path)


SPLIT_FOLDERS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2


@pytest.mark.parametrize(
    ("kind", "above"),
    [
        *(("table", above) for above in ("{}", "{}/images", "images/{}", "Images/{}/more")),
        *(("segmentation", above) for above in ("{}/images", "images/{}", "imagesTr/{}")),
        *(("class folders", above) for above in ("{}", "images/{}")),
    ],
)
def test_folders_of_splits(tmp_path, kind, above):
    text, names = ten(["healthy", "ill"])
    for index, (name, split) in enumerate(zip(names, SPLIT_FOLDERS, strict=True)):
        folder = above.format(split) + (("/healthy", "/ill")[index % 2] if kind == "class folders" else "")
        write_image(tmp_path / folder / name, noise(6, 8, seed=index))
        if kind == "segmentation":
            write_image(tmp_path / folder.replace("images", "labels") / name, noise(6, 8, high=2))
    if kind == "table":
        (tmp_path / "labels.csv").write_text(text)
    made = segment(tmp_path) if kind == "segmentation" else classify(tmp_path)
    found = [sorted(entry["image"].split("/")[-1] for entry in made[key]) for key in LISTS]
    assert found == [names[:6], names[6:8], names[8:]]
    assert made["drawn"] == {}
    if kind != "segmentation":
        assert [entry["label"] for entry in sorted(entries(made), key=lambda e: e["image"][-6:])] == [0, 1] * 5


@pytest.mark.parametrize(
    "folders",
    [
        ("Train_Val/train", "Train_Val/val", "Test"),
        ("train/images", "train/images/val", "test/images"),
        ("entrenamiento", "validación", "prueba"),
        ("apprentissage", "validation", "test"),
        ("Training", "Validierung", "Test"),
    ],
)
def test_words_of_splits_of_two_levels_and_other_languages(tmp_path, folders):
    names = dict(zip(("train", "val", "test"), folders, strict=True))
    files = [f"{names[split]}/{index}.png" for index, split in enumerate(SPLIT_FOLDERS)]
    for index, file in enumerate(files):
        write_image(tmp_path / file, noise(6, 8, seed=index))
    (tmp_path / "labels.csv").write_text(
        "\n".join(["file,label", *(f"{f},{('healthy', 'ill')[i % 2]}" for i, f in enumerate(files))])
    )
    made = classify(tmp_path)
    assert [sorted(images_of(made[key])) for key in LISTS] == [files[:6], files[6:8], files[8:]]


@pytest.mark.parametrize("stray", ["images/x.png", "images/other/x.png"])
def test_images_outside_the_folders_of_splits_are_for_training(tmp_path, stray):
    files = [f"images/{split}/{index}.png" for index, split in enumerate(SPLIT_FOLDERS)]
    for index, file in enumerate([*files, stray]):
        write_image(tmp_path / file, noise(6, 8, seed=index))
        write_image(tmp_path / file.replace("images", "labels"), noise(6, 8, high=2))
    made = segment(tmp_path)
    assert [sorted(images_of(made[key])) for key in LISTS] == [sorted([*files[:6], stray]), files[6:8], files[8:]]


@pytest.mark.parametrize("stray", ["overview", "unlabeled/x", "copy/{}/y"])
def test_pre_training_leaves_out_tests_where_others_lie_outside(tmp_path, spatial_dims, stray):
    suffix, shape = {2: (".png", (6, 8)), 3: (".nii.gz", (6, 8, 5))}[spatial_dims]
    names = [f"{word}/{word}{index}" for word in ("train", "test") for index in range(6)]
    names += [stray.format(word) for word in ("train", "test")] if "{" in stray else [stray]
    for index, name in enumerate(names):
        write = write_image if spatial_dims == 2 else write_nifti
        write(tmp_path / f"{name}{suffix}", noise(*shape, seed=index))
    made = make_datalist(tmp_path)
    taken = images_of([*made["training"], *made["validation"]])
    assert sorted(taken) == sorted(f"{name}{suffix}" for name in names if "test" not in name)
    assert made["excluded"] == {"test": len(names) - len(taken)}


def test_splits_that_are_refused(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,patient,split", lambda i: f",p{i % 3},{'test' * (i > 7)}")
    root = write_table(tmp_path, text.replace(",p1,", ",p1,val"), names)
    refuses("has 2 patients in both training and test: p0, p2", classify, root)
    (root / "labels.csv").write_text("file,label,patient\nx0.png,ill,a\nx1.png,healthy,b\n")
    refuses("training, validation and test need 3 patients, got 2: a, b", classify, root)
    (root / "labels.csv").write_text("file,label,split\n" + "".join(f"x{i}.png,{i % 2},test\n" for i in range(4)))
    refuses("has an empty list 'training'", classify, root)
    text = "".join(f"x{i}.png,{int(i > 7)},{'test' if i > 7 else 'train'}\n" for i in range(10))
    (root / "labels.csv").write_text("file,label,split\n" + text)
    refuses(r"no image of the class 'ill' in training \(0 in validation, 2 in test\)", classify, root)


@pytest.mark.parametrize("column", ["dataset", "fold", "Subset"])
def test_a_column_of_words_of_splits_has_any_name(tmp_path, column):
    words = ["train"] * 6 + ["VALID"] * 2 + ["test"] * 2
    text, names = ten(["healthy", "ill"], f"file,label,{column}", lambda i: f",{words[i]}")
    made = classify(write_table(tmp_path, text, names))
    found = [sorted(entry["image"].split("/")[-1] for entry in made[key]) for key in LISTS]
    assert found == [names[:6], names[6:8], names[8:]]
    pretrained = make_datalist(tmp_path)
    assert {e["image"] for key in LISTS[:2] for e in pretrained[key]} == {f"images/{name}" for name in names[:8]}


def test_segmentation_with_a_table_of_patients_and_splits(tmp_path):
    write_maps(tmp_path, 2, count=6)
    rows = "".join(f"case_{i},p{i // 2},{'train' if i < 4 else 'test'}\n" for i in range(5))
    (tmp_path / "p.csv").write_text("file,patient,split\n" + rows)
    made = segment(tmp_path, patient=str(tmp_path / "p.csv"))
    assert [len(made[key]) for key in LISTS] == [2, 2, 1]
    assert reasons(made) == {"images/case_5.nii.gz": "images/case_5.nii.gz has no patient in the patient table."}
