"""Lists of images with classes: CSV files and a folder a class."""

import json
import re
import unicodedata
import zlib

import pytest
from labeled_files import LISTS, classify, entries, labels, reasons, ten, write_table
from scan_files import cut, noise, write_image

from dira_monai.apps.planning.labels import find_classes
from dira_monai.datalists.options import LabelOptions
from dira_monai.datalists.patients import read_patient_table
from dira_monai.datalists.splits import draw_patients
from dira_monai.utils.errors import InputError


@pytest.mark.parametrize("head", ["file,label", "image,finding", "path,diagnosis", "file,class"])
def test_a_table_of_classes(tmp_path, head):
    text, names = ten(["healthy", "ill", "1.0"], head)
    made = classify(write_table(tmp_path, text, names))
    assert labels(made) == [0, 1, 1, 0, 1, 1, 0, 1, 1, 0]
    assert entries(made)[0]["image"] == "images/x0.png"
    assert (made["skipped"], made["excluded"], made["patient_rule"]) == ([], {}, "file")


@pytest.mark.parametrize("place", ["below", "images", "elsewhere"])
@pytest.mark.parametrize("form", ["images/x{}.png", "x{}", "./x{}.png", "{root}/images/x{}.png", "images\\x{}.png"])
def test_rows_find_their_images(tmp_path, place, form):
    root = tmp_path / "data"
    names = [f"x{index}.png" for index in range(10)]
    rows = [f"{form.format(index, root=root)},{index % 2}" for index in range(10)]
    write_table(root, "\n".join(["file,label", *rows]), names)
    if place == "elsewhere":
        (root / "labels.csv").rename(tmp_path / "other.csv")
    folder = root / "images" if place == "images" else root
    made = classify(folder, labels=str(tmp_path / "other.csv") if place == "elsewhere" else None)
    assert labels(made) == [0, 1] * 5


@pytest.mark.parametrize(("of_table", "of_files"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_of_one_or_two_signs_are_the_same(tmp_path, of_table, of_files):
    names = [unicodedata.normalize(of_files, f"Müller{index}.png") for index in range(10)]
    people = [unicodedata.normalize((of_table, of_files)[index % 2], f"Ü{index // 2}") for index in range(10)]
    rows = [f"{unicodedata.normalize(of_table, names[i])},{i % 2},{people[i]}" for i in range(10)]
    write_table(tmp_path, "\n".join(["file,label,patient", *rows]), names)
    made = classify(tmp_path)
    assert labels(made) == [0, 1] * 5
    assert {entry["patient"] for entry in entries(made)} == {f"Ü{index}" for index in range(5)}
    of_patients = read_patient_table(tmp_path / "labels.csv", names)
    assert of_patients == [(f"Ü{index // 2}", "") for index in range(10)]


def test_a_table_and_the_files_that_it_does_not_fit(tmp_path):
    text, names = ten(["healthy", "ill", "healthy"])
    write_table(tmp_path, text + "gone.png,ill\n", [*names, "extra.png"])
    (tmp_path / "labels.csv").write_text((tmp_path / "labels.csv").read_text().replace("x5.png,healthy", "x5.png,"))
    cut(tmp_path / "images" / "x1.png")
    told = reasons(classify(tmp_path))
    assert told["gone.png"] == f"gone.png does not exist but is listed in {tmp_path / 'labels.csv'}, row 12."
    assert told["images/extra.png"] == f"images/extra.png has no row in {tmp_path / 'labels.csv'}."
    assert told["images/x5.png"] == f"{tmp_path / 'labels.csv'}, row 7 has no label that is known."
    assert told["images/x1.png"].startswith("images/x1.png cannot be read")
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        classify(tmp_path, strict=True)
    write_table(tmp_path, text, [f"other{index}.png" for index in range(20)])
    made = classify(tmp_path)
    assert made["excluded"] == {"without a row in labels.csv": 21}
    assert list(reasons(made)) == ["images/x1.png"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file,label\na.png,sick\n", {}, r"labels\.csv: 'sick' \(1\) is none of the classes healthy, ill; say what"),
        ("file,label\na.png,2\n", {}, r"'2' \(1\) is none of the classes healthy, ill"),
        ("file,label\na.png,ill\na,healthy\n", {}, r"row 3 says \('healthy', '', ''\) of a where .* row 2 says"),
        ("file,label\nb,ill\n", {}, r"row 2 names b, which may be images/b\.jpg and images/b\.png"),
        (
            "file,word\na.png,ill\n",
            {},
            r"has no column label, labels, .*; its columns are file, word: .*--label_column",
        ),
        ("name,label\na.png,ill\n", {}, "has no column file, image, path"),
        ("file,label\na.png,ill\n", {"label_column": "word"}, "has no column word"),
        ("file,label\na.png,ill\n", {"label_map": {"ill": "sick"}}, "label_map makes 'sick' of 'ill', which is none"),
        ("file,label\na.png,x\n", {"label_map": {"x": "Ill"}}, "label_map makes 'Ill' of 'x', which is none"),
        ("file,ill\na.png,maybe\n", {"class_names": ["ill"]}, "row 2: column ill must be 1, 0, .* got 'maybe'"),
        ("file,ill\na.png,0.5\n", {"class_names": ["ill"]}, "row 2: column ill must be 1, 0, .* got '0.5'"),
        ("file,ill\na.png,1\n", {"class_names": ["ill"], "label_map": {"a": "ill"}}, "so label_map is invalid, got"),
        ("file,label\nc.png,ill\n", {}, r"names an image: the first of 1 is 'c\.png'"),
        ("file,label,split\na.png,ill,odd\n", {}, "no usable image .*: all are left out by their split or label"),
        ("file,label\n", {"labels": "images"}, "labels must be a CSV or TSV file where the task is classification"),
        ("file,label\n", {"labels": "none.csv"}, r"the table of labels none\.csv does not exist"),
        ("file,label\na.png,ill\n", {"label_values": [0, 1]}, "label_values is invalid for the task classification"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, options, message):
    write_table(tmp_path, text, ["a.png", "b.png", "b.jpg"])
    with pytest.raises(InputError, match=message):
        classify(tmp_path, multi_label="class_names" in options, **options)


def test_a_table_in_another_encoding(tmp_path):
    write_table(tmp_path, "", ["a.png"])
    (tmp_path / "labels.csv").write_bytes("file,label\na.png,schön\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"the table of labels .*labels\.csv is not in UTF-8"):
        classify(tmp_path)


def test_label_map_joins_and_leaves_out(tmp_path):
    text, names = ten(["normal", "virus", "bacteria", "unclear"])
    kinds = {"normal": "healthy", "virus": "ill", "bacteria": "ill", "unclear": None}
    made = classify(write_table(tmp_path, text, names), label_map=kinds)
    assert labels(made) == [0, 1, 1, 0, 1, 1, 0, 1]
    assert made["excluded"] == {"labeled unclear": 2}


def test_several_labels_in_one_column(tmp_path):
    words = ["Mass|Edema", "No Finding", "Edema", "", "none", "Hernia|Mass"]
    made = classify(
        write_table(tmp_path, *ten(words, "file,findings")),
        ["Edema", "Mass"],
        multi_label=True,
        label_map={"Hernia": "none"},
    )
    assert labels(made)[:6] == [[1, 1], [0, 0], [1, 0], [0, 0], [0, 0], [0, 1]]
    with pytest.raises(InputError, match=r"'Hernia' \(1\) is none of the classes Edema, Mass"):
        classify(tmp_path, ["Edema", "Mass"], multi_label=True)


def test_one_column_a_class(tmp_path):
    words = ["1,0", "0.0,1.0", ",1", "-1,1", "nan,0", "1,-1.0", ","]
    made = classify(
        write_table(tmp_path, *ten(words, "file,Edema,Mass")), ["Mass", "Edema"], multi_label=True, patient="file"
    )
    expected = [[0, 1], [1, 0], [1, None], [1, None], [0, None], [None, 1], [0, 1], [1, 0], [1, None]]
    assert labels(made) == expected
    assert list(reasons(made)) == ["images/x6.png"]  # nothing is known of it
    assert json.loads(json.dumps(made)) == made


def test_one_column_a_class_of_pandas(tmp_path):
    words = ["True,False", "False,True", "TRUE,true"]
    made = classify(write_table(tmp_path, *ten(words, "file,Edema,Mass")), ["Edema", "Mass"], multi_label=True)
    assert labels(made)[:3] == [[1, 0], [0, 1], [1, 1]]


def test_one_folder_a_class(tmp_path):
    for kind in ("NORMAL", "PNEUMONIA", "OTHER", "A", "B", "C"):
        for index in range(4):
            write_image(tmp_path / kind / f"{kind}{index}.png", noise(6, 8))
    write_image(tmp_path / "stray.png", noise(6, 8))
    names = {"OTHER": None, "A": None, "B": None, "C": None}
    made = classify(tmp_path, ["NORMAL", "PNEUMONIA"], label_map=names)
    assert labels(made) == [0] * 4 + [1] * 4
    assert made["excluded"] == {f"labeled {name}": 4 for name in ("A", "B", "C", "OTHER")}
    assert made["patient_rule"] == "file"  # six folders are not six patients
    assert "lies in no folder of a class" in reasons(made)["stray.png"]
    with pytest.raises(InputError, match=r"A/A0\.png: 'A' \(4\), 'B' \(4\), 'C' \(4\), 'OTHER' \(4\) are none of"):
        classify(tmp_path, ["NORMAL", "PNEUMONIA"])


def test_folders_of_splits_classes_and_patients(tmp_path):
    for split, patients in {"train": range(8), "test": range(8, 10)}.items():
        for patient in patients:
            for kind in ("healthy", "ill"):
                write_image(tmp_path / split / kind / f"p{patient}" / f"{kind}.png", noise(6, 8))
    made = classify(tmp_path)
    assert [{entry["patient"] for entry in made[key]} for key in ("validation", "test")] == [
        draw_patients([f"p{index}" for index in range(8)], 0.1, 0, "validation"),
        {"p8", "p9"},
    ]
    assert labels(made) == [0, 0, 1, 1] + [0] * 8 + [1] * 8
    table = tmp_path / "patients.csv"
    table.write_text(
        "file,patient\n" + "".join(f"{entry['image']},{entry['patient'][-1]}\n" for key in LISTS for entry in made[key])
    )
    again = classify(tmp_path, patient=str(table))
    assert {entry["patient"] for entry in again["test"]} == {"8", "9"}


@pytest.mark.parametrize("above", ["P{:02}", "fold_1/P{:02}", "{:05}"])
def test_class_folders_below_those_of_patients(tmp_path, above):
    for patient in range(11, 19):
        for index, kind in enumerate(("ill", "healthy", "healthy")):
            folder = tmp_path / above.format(patient) / kind
            write_image(folder / f"{index}.png", noise(6, 8, seed=3 * patient + index))
    made = classify(tmp_path)
    assert all(entry["label"] == ("/ill/" in entry["image"]) for entry in entries(made))
    assert {(entry["patient"], entry["image"].split("/")[-3]) for entry in entries(made)} == {
        (name, name) for name in (above.format(patient).split("/")[-1] for patient in range(11, 19))
    }
    write_image(tmp_path / above.format(11) / "unsure" / "3.png", noise(6, 8))
    with pytest.raises(InputError, match="none of the classes healthy, ill"):
        classify(tmp_path)
    assert len(entries(classify(tmp_path, label_map={"unsure": None}))) == 24


@pytest.mark.parametrize("above", ["lung_image_sets", "lung_image_sets/{}", "sets/{}/lung"])
def test_class_folders_below_others(tmp_path, above):
    for index in range(20):
        folder = f"{above.format(('train', 'test')[index > 15])}/{('healthy', 'ill')[index % 2]}"
        write_image(tmp_path / folder / f"x{index}.png", noise(6, 8, seed=index))
    made = classify(tmp_path)
    assert len(entries(made)) == 20
    assert all(entry["label"] == ("/ill/" in entry["image"]) for entry in entries(made))
    assert len(made["test"]) == 4 or "{}" not in above


@pytest.mark.parametrize(
    ("places", "found"),
    [
        (["P{n}/benign", "P{n}/malignant"], None),
        (["fold_{n}/cat", "fold_{n}/dog"], None),
        (["{n}/left", "{n}/right"], ["1", "2", "3"]),  # grades
        (["grade{n}"], ["grade1", "grade2", "grade3"]),
        (["cat/P{n}", "dog/P{n}"], ["cat", "dog"]),
    ],
)
def test_folders_of_patients_are_no_classes_unless_named(tmp_path, places, found):
    for number in (1, 2, 3):
        for place in places:
            for index in range(12):
                path = tmp_path / place.format(n=number) / f"x{index}.png"
                write_image(path, noise(4, 5, seed=zlib.crc32(str(path.relative_to(tmp_path)).encode())))
    options = LabelOptions(task="classification", class_names=["?", "!"], patient="path")
    if found:
        assert find_classes(tmp_path, options)["class_names"].value == found
        return
    names = sorted(place.split("/")[1] for place in places)
    with pytest.raises(InputError, match=rf"such as patients have.*--class_names \"{re.escape(str(names))}\""):
        find_classes(tmp_path, options)
