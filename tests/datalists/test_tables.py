"""Tables as public data sets have them: read with the right labels and patients, or one sentence with the cure."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from labeled_files import LISTS, classify, write_table
from scan_files import noise, write_image

from dira_monai.apps.planning.labels import find_classes
from dira_monai.bundle.command_line import check_command_line
from dira_monai.bundle.values import take_mapping, take_text, take_words
from dira_monai.cli.deferred import _parser_of, parse_value
from dira_monai.datalists.options import LabelOptions
from dira_monai.datalists.tables import read_table
from dira_monai.datalists.unlabeled import make_datalist
from dira_monai.utils.errors import InputError

NAMES = [f"{index:08d}.png" for index in range(10)]
ROWS = [(name, ("sick", "well")[index % 2], f"p{index // 2}") for index, name in enumerate(NAMES)]


def table(head, row, end="\n"):
    return end.join([head, *(row.format(name, label, patient) for name, label, patient in ROWS)]) + end


READ = {  # by kind: the bytes, whether patients are p0 to p4, and options
    "chexpert": (table("Path,Sex,label", "CheXpert-small/train/{0},M,{1}").encode(), False, {}),
    "nih": (table("Image Index,Finding Labels,Patient ID", "{0},{1},{2}").encode(), True, {}),
    "ham": (table("lesion_id,image_id,dx,age", "{2},{0},{1},80").encode(), True, {}),
    "semicolon": (table("file;label;patient", "{0};{1};{2}").encode(), True, {}),
    "excel": (table("sep=;\r\nFile;Label", "{0};{1}", "\r\n").encode("utf-16"), False, {}),
    "tab": (table("FILE\tLabel", "{0}\t{1}").encode("utf-8-sig"), False, {}),
    "blanks": (table("file, label, patient", "{0}, {1}, {2}").encode(), True, {}),
    "lists of one (ODIR)": (table("ID,labels,target,filename", """{2},['{1}'],"[1, 0]",{0}""").encode(), False, {}),
    "index": (table(",file,label", "7,{0},{1}").encode(), False, {}),
    "quoted lines": (table("file,note,label", '{0},"two\nlines, and ""more""",{1}').encode(), False, {}),
    "empty lines and two marks": (
        b"\xef\xbb\xbf" + table("\n \nfile,label", "{0},{1}\n").encode("utf-8-sig"),
        False,
        {},
    ),
    "utf-16 without its mark": (table("file,label", "{0},{1}").encode("utf-16-le"), False, {}),
    "lines in cells without quotes": (table("file,note,label", "{0},a\u2028b\x0bc\x85d\x1ce,{1}").encode(), False, {}),
    "commas in a quoted head": (table('"size, mm, px";file;label', "1,5;{0};{1}").encode(), False, {}),
    "own names": (
        table("a,b,c", "{0},{1},{2}").encode(),
        True,
        dict(zip(("file", "label", "patient"), "abc", strict=True)),
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_a_table_is_read(tmp_path, kind):
    content, people, columns = READ[kind]
    root = write_table(tmp_path, "", NAMES, folder=".")
    (root / "labels.csv").write_bytes(content)
    made = classify(root, ["sick", "well"], **{f"{name}_column": column for name, column in columns.items()})
    entries = [entry for key in LISTS for entry in made[key]]
    assert {entry["image"]: entry["label"] for entry in entries} == {name: n % 2 for n, name in enumerate(NAMES)}
    wanted = {name: patient if people else name[:8] for name, _, patient in ROWS}
    assert {entry["image"]: entry["patient"] for entry in entries} == wanted


REFUSED = {
    "": "is no CSV file with a header line: it is empty",
    "file,label\n": r"no row of .*labels\.csv names an image: it has none",
    table("file,label,label", "{0},{1},{1}"): r"has 2 columns label; rename all but one",
    table("file,label", "x{0},{1}"): r"the first of 10 is 'x00000000.png' in the column file, .* by --file_column",
    table("name,label", "{0},{1}"): r"has no column file, .*; its columns are name, label: name one by --file_column",
    table("file,label,patient", "{0},{1},{2}").replace("sick,p2", "sick,P2"): "p2 and P2|P2 and p2",
    table("file,label", "{0},{1}").replace("sick", "Sick"): r"'Sick' \(5\) is none of the classes sick, well; .* '\*'",
    table("file,label", "{0},{1}") + "00000000.png,well\n": r"row 12 says .* where .*row 2 says .*; keep one",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_table_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=REFUSED[text]):
        classify(write_table(tmp_path, text, NAMES, folder="."), ["sick", "well"])


def test_one_column_a_class_of_which_one_is_true(tmp_path):
    rows = [f"{name[:8]},{float(n % 2 == 0)},{float(n % 2)},0.0\n" for n, name in enumerate(NAMES)]
    root = write_table(tmp_path, "image,MEL,NV,BCC\n" + "".join(rows), NAMES, folder=".")
    made = classify(root, ["MEL", "NV"])
    assert {e["image"]: e["label"] for key in LISTS for e in made[key]} == {name: n % 2 for n, name in enumerate(NAMES)}
    (root / "labels.csv").write_text("image,MEL,NV\n00000000,1,1\n")
    with pytest.raises(InputError, match="has 2 of the classes; give --multi_label True"):
        classify(root, ["MEL", "NV"])


def test_the_rest_of_the_words_has_one_class(tmp_path):
    words = ["virus", "bacteria", "poor", "normal", "other"]
    text = "file,label\n" + "".join(f"{name},{words[n % 5]}\n" for n, name in enumerate(NAMES))
    root = write_table(tmp_path, text, NAMES, folder=".")
    made = classify(root, ["normal", "ill"], label_map={"poor": None, "*": "ill"})
    found = {e["image"]: e["label"] for key in LISTS for e in made[key]}
    assert found == {name: int(n % 5 != 3) for n, name in enumerate(NAMES) if n % 5 != 2}
    with pytest.raises(InputError, match=r"'virus' \(2\), 'bacteria' \(2\), 'other' \(2\) are none of"):
        classify(root, ["normal", "ill"], label_map={"poor": None})


@pytest.mark.parametrize(
    ("cells", "class_names", "label_map", "wanted"),
    [
        (["1.0", "2.0", "3.0"], ["1", "2", "3"], None, [0, 1, 2]),  # as pandas writes a column with gaps
        (["1.0", "2", "0"], ["2", "1", "0"], None, [1, 0, 2]),
        (["0", "1.0"], ["ill", "well"], {"1": "ill", "0": "well"}, [1, 0]),
        (["0", "1"], ["ill", "well"], {"1": "ill", "*": "well"}, [1, 0]),
        (["0", "1.0", "2"], ["well", "ill"], {"2": None}, [0, 1, None]),
        (["0", "1", "2"], ["1", "2"], None, "'0' .* is none of the classes 1, 2"),
    ],
)
def test_numbers_that_are_words_are_no_places_of_classes(tmp_path, cells, class_names, label_map, wanted):
    text = "file,label\n" + "".join(f"{name},{cells[n % len(cells)]}\n" for n, name in enumerate(NAMES))
    root = write_table(tmp_path, text, NAMES, folder=".")
    options = {"label_map": label_map, "test_fraction": 0}
    if isinstance(wanted, str):
        with pytest.raises(InputError, match=wanted):
            classify(root, class_names, **options)
        return
    found = {e["image"]: e["label"] for key in LISTS for e in classify(root, class_names, **options)[key]}
    labels = {name: wanted[n % len(cells)] for n, name in enumerate(NAMES)}
    assert found == {name: label for name, label in labels.items() if label is not None}


def test_several_labels_as_python_writes_a_list(tmp_path):
    cells = ["\"['a', 'b']\"", "\"['b']\"", "['none']", "a|b"]
    text = "file,label\n" + "".join(f"{name},{cells[n % 4]}\n" for n, name in enumerate(NAMES))
    made = classify(write_table(tmp_path, text, NAMES, folder="."), ["a", "b"], multi_label=True)
    found = {e["image"]: e["label"] for key in LISTS for e in made[key]}
    assert found == {name: [[1, 1], [0, 1], [0, 0], [1, 1]][n % 4] for n, name in enumerate(NAMES)}
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{name},{cells[0]}\n" for name in NAMES))
    planned = find_classes(tmp_path, LabelOptions(task="classification", class_names=["?", "!"]))
    assert (planned["class_names"].value, planned["multi_label"].value) == (["a", "b"], True)


def test_folders_that_all_rows_share_name_no_other_image(tmp_path):
    for split in ("train", "test"):
        write_image(tmp_path / split / "x.png", noise(6, 8))
    (tmp_path / "labels.csv").write_text("Path,label\nset/train/x.png,0\nset/test/x.png,1\nset/more/x.png,1\n")
    with pytest.raises(InputError, match="need"):
        classify(tmp_path, patient="path")
    columns, rows = read_table(tmp_path / "labels.csv", "table")
    assert columns == ["Path", "label"]
    assert rows[2] == {"Path": "set/more/x.png", "label": "1"}


def test_a_table_of_patients_of_mimic(tmp_path):
    text = "dicom_id,study_id,subject_id,split\n"
    for number in range(12):
        split = ("train", "validate", "test")[number // 6 + number // 10]
        write_image(tmp_path / "scans" / f"p{number // 2}/s{number}/{number:08x}.png", noise(6, 8, seed=number))
        text += f"{number:08x},5{number},1000{number // 2},{split}\n"
    (tmp_path / "split.csv").write_text(text)
    made = make_datalist(tmp_path / "scans", patient=str(tmp_path / "split.csv"))
    assert {entry["patient"] for entry in made["training"]} == {"10000", "10001", "10002"}
    assert {entry["patient"] for entry in made["validation"]} == {"10003", "10004"}
    assert made["excluded"] == {"test": 2}


@pytest.mark.parametrize("start", ["D:\\my data\\", ".\\", "./", "/data/x/", ""])
def test_a_table_of_patients_with_paths_of_other_machines(tmp_path, start):
    names = [f"{site}{os.sep}{number}.png" for site in "ab" for number in range(6)]
    for seed, name in enumerate(names):
        write_image(tmp_path / "scans" / name, noise(6, 8, seed=seed))
    wanted = {name: f"p{name[0]}{int(name[2]) // 2}" for name in names}
    own = "\\" if "\\" in start else "/"
    rows = [f"{start}{name.replace(os.sep, own)};{patient}" for name, patient in wanted.items()]
    (tmp_path / "p.csv").write_text("\n".join(["file;patient", *rows]))
    made = make_datalist(tmp_path / "scans", patient=str(tmp_path / "p.csv"))
    assert {e["image"]: e["patient"] for key in LISTS[:2] for e in made[key]} == wanted


def test_missing_patients_are_not_one_patient(tmp_path):
    people = ["nan", "NaN", "", *(f"p{n}" for n in range(7))]
    text = "file,label,patient\n" + "".join(
        f"{x},{n % 2},{p}\n" for n, (x, p) in enumerate(zip(NAMES, people, strict=True))
    )
    made = classify(write_table(tmp_path, text, NAMES, folder="."), ["a", "b"])
    assert {e["image"] for key in LISTS for e in made[key]} == {*NAMES[3:]}
    assert {row["image"] for row in made["skipped"]} == {*NAMES[:3]}


@pytest.mark.parametrize(
    ("name", "word", "meant"),
    [
        *(
            ("dataset_dir", word, word)
            for word in ("2024_10", "007", "1e3", "scans,2024", "batch#2", "a=b", "o'b", "ö x")
        ),
        ("train#dataset_dir", "'2024_10'", "2024_10"),
        ("pretraining_list", "None", None),
        ("file_column", "[x]", "[x]"),
        ("class_names", "[COVID-19, left lung]", ["COVID-19", "left lung"]),
        ("class_names", "['a, b', \"x\"]", ["a, b", "x"]),
        ("class_names", "[2024_10, 1]", ["2024_10", "1"]),
        ("class_names", "[tumor (core), Crohn's]", ["tumor (core)", "Crohn's"]),
        ("label_map", "{COVID-19: 'a,b', poor: None, '*': x}", {"COVID-19": "a,b", "poor": None, "*": "x"}),
        ("spacing", "[1, 2]", [1, 2]),
    ],
)
def test_words_of_the_command_line_that_are_text(name, word, meant):
    assert parse_value(name, word) == meant


def test_words_that_are_no_lists():
    assert (take_words("ab"), take_words("a,b"), take_words("[]"), take_mapping("ab")) == ("ab", ["a", "b"], [], "ab")
    with pytest.raises(KeyError):
        take_text("spacing", "1")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--dataset_dir", "2024_10"], "--dataset_dir 2024_10: arrives as 202410; write --dataset_dir \"'2024_10'\""),
        (["--output_dir=runs#1"], "--output_dir runs#1: arrives as 'runs'; write --output_dir \"'runs#1'\""),
        (["--labels", "a,b"], "--labels a,b: arrives as ('a', 'b'); write --labels \"'a,b'\""),
        (["--class_names", "[a-b, c]"], "arrives as '[a-b, c]'; write --class_names \"['a-b', 'c']\""),
        (["--reader", "x#1"], "arrives as 'x'; write --reader \"'x#1'\""),
    ],
)
def test_words_that_do_not_arrive_in_monai_are_refused(words, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        check_command_line(words)
    check_command_line(["--dataset_dir", "'2024_10'", "--class_names", "['a-b', 'c']", "--output_dir", "/x/a=1, [ö]'"])
    for folder in ("/x/a#1", "'a#1'"):
        with pytest.raises(InputError, match="MONAI makes :: of # in paths"):
            check_command_line(["--output_dir", folder])


def test_values_of_an_object_are_not_taken_for_texts():
    for kind, word, meant in (
        (Mapping[str, Any] | None, "{'a': [1, 2]}", {"a": [1, 2]}),
        (Mapping[str, str | None] | None, "{a: 1}", {"a": "1"}),
        (Mapping[Any, str | None] | None, "{1: b-c}", {"1": "b-c"}),
        (Sequence[str], "[1, b-c]", ["1", "b-c"]),
        (Sequence[float] | None, "[1, 2]", [1, 2]),
        (str | Path | None, "2024_10", "2024_10"),
    ):
        assert _parser_of(kind)(word) == meant


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
@pytest.mark.parametrize("column", ["participant_id", "ID"])
def test_a_table_of_patients_labels_all_their_images(tmp_path, suffix, column):
    """As participants.tsv of BIDS, RSNA-MICCAI and OASIS name them: by a folder, or by how file names begin."""
    names = [f"sub-{index:02d}" for index in range(8)]
    for index, name in enumerate(names):
        file = f"{name}/ses-1/anat/{name}_T1w.png" if index % 2 else f"{name}_ses-1_T1w.png"
        write_image(tmp_path / file, noise(6, 8, seed=index))
        write_image(tmp_path / file.replace("T1w", "T2w"), noise(6, 8, seed=100 + index))
    rows = [f"{name}\t3\t{('sick', 'well')[index % 3 == 0]}" for index, name in enumerate(names)]
    table = tmp_path / f"participants{suffix}"
    table.write_text("\n".join([f"{column}\tage\tgroup", *rows]) + "\n")
    options = {"labels": table.name, "label_column": "group"} | ({"file_column": "ID"} if column == "ID" else {})
    made = classify(tmp_path, ["sick", "well"], **options)
    found = {(entry["image"].split("/")[-1][:6], entry["label"]) for key in LISTS for entry in made[key]}
    assert found == {(name, int(index % 3 == 0)) for index, name in enumerate(names)}
    assert sum(len(made[key]) for key in LISTS) == 16
    assert {entry["patient"] for key in LISTS for entry in made[key]} == {*names}
    table.write_text(table.read_text() + rows[0].replace("well", "sick") + "\n")
    with pytest.raises(InputError, match=r"row 10 says .*'sick'.* of sub-00 where .*row 2 says .*'well'.*; keep one"):
        classify(tmp_path, ["sick", "well"], **options)
