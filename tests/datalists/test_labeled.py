"""Lists of labeled data: refused arguments, what MONAI reads of them, their summary."""

import pytest
from labeled_files import LISTS, classify, segment, ten, write_maps, write_table
from monai.data import load_decathlon_datalist
from scan_files import refuses

from dira_monai.datalists.io import write_datalist
from dira_monai.datalists.options import LabelOptions
from dira_monai.datalists.summary import describe_labeled, summarize_datalist
from dira_monai.utils.errors import InputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"label_threshold": 1, "label_values": [0, 1]},
            r"label_threshold \(1\) and label_values \(\[0, 1\]\) exclude each other; .* give --label_threshold None, ",
        ),
        ({"label_threshold": "a"}, "label_threshold must be a number, or None, got 'a'"),
        ({"label_threshold": 1, "class_names": ["a", "b", "c"]}, "label_threshold separates 2 classes, got 1 for 3"),
        ({"label_values": [0, 0]}, r"label_values must be a list of different numbers, or None, got \[0, 0\]"),
        ({"label_values": [0, 1, 2]}, r"label_values must be 2 different values, one a class, got \[0, 1, 2\]"),
        ({"class_names": ["a"]}, r"class_names must be a list of at least 2 different names, got \['a'\]"),
        ({"class_names": ["a", "a"]}, r"at least 2 different names, got \['a', 'a'\]"),
        ({"class_names": "ab"}, "at least 2 different names, got 'ab'"),
        ({"multi_label": True}, "multi_label is invalid for the task segmentation, got True"),
        ({"test_fraction": 1}, "test_fraction must be a number from 0 and below 1, got 1"),
        ({"validation_fraction": 0}, "validation_fraction must be a number above 0 and below 1, got 0"),
        ({"exclude_patients_of": "boxes"}, r"exclude_patients_of must be a split of the data \(\), got 'boxes'"),
    ],
)
def test_arguments_that_are_refused(tmp_path, options, message):
    refuses(message, segment, write_maps(tmp_path, 2, count=3), **options)


def test_a_task_that_there_is_not(tmp_path):
    with pytest.raises(InputError, match="task must be segmentation or classification, got 'detection'"):
        LabelOptions(task="detection", class_names=["a", "b"]).check()


def made_for_monai(folder, kind):
    if kind in (2, 3):
        return segment(write_maps(folder, kind))
    words, head = (
        (["1,0", ",1", "0,1"], "file,healthy,ill") if kind == "multi" else (["healthy", "ill", "ill"], "file,label")
    )
    return classify(write_table(folder, *ten(words, head)), multi_label=kind == "multi")


@pytest.mark.parametrize("kind", [2, 3, "single", "multi"])
def test_monai_reads_the_lists(tmp_path, kind):
    made, maps = made_for_monai(tmp_path / "data", kind), kind in (2, 3)
    write_datalist(made, tmp_path / "out" / "datalist.json")
    for key in LISTS:
        read = load_decathlon_datalist(tmp_path / "out" / "datalist.json", maps, key, made["dataset_dir"])
        assert [(entry["image"], entry["label"]) for entry in read] == [
            (f"{tmp_path}/data/{entry['image']}", f"{tmp_path}/data/{entry['label']}" if maps else entry["label"])
            for entry in made[key]
        ]


def test_describe_labeled(tmp_path):
    text, names = ten(["healthy", "ill"], "file,label,patient,split", lambda index: f",p{index // 3},")
    write_table(tmp_path, text + "".join(f"gone{index},ill,p,\n" for index in range(5)), names)
    made = classify(tmp_path, test_fraction=0)
    lines = describe_labeled(made).splitlines()
    table, notes = lines[:5], lines[5:]
    counts = {key: len(made[key]) for key in LISTS}
    assert table[0].split() == ["training", "validation", "test"]
    assert table[1].split() == ["images", *map(str, counts.values())]
    assert table[2].split() == ["patients", "3", "1", "0"]
    ill = [sum(entry["label"] for entry in made[key]) for key in LISTS]
    assert table[3].split() == ["healthy", *(str(counts[key] - n) for key, n in zip(LISTS, ill, strict=True))]
    assert table[4].split() == ["ill", *map(str, ill)]
    assert notes[0] == "5 skipped, patients by labels.csv: p0, p1, p2, p3"
    assert notes[1].startswith("skipped: gone0 does not exist")
    assert notes[4] == "skipped: ... and 2 more"


def test_describe_lists_of_version_0_1():
    entries = {key: [{"image": f"{key}.png", "label": 0, "patient": key}] for key in LISTS}
    old = {"class_names": ["healthy"], "left_out": {"labeled unclear": 2}, **entries}
    assert describe_labeled(old).endswith("left out: 2 labeled unclear")
    assert summarize_datalist(old | {"left_out": {"test": 3}}).endswith("0 skipped, 3 of split test left out")
