import json

import pytest
import torch
from monai.handlers.utils import write_metrics_reports

from dira_monai.apps.comparison.cases import read_cases, read_scores
from dira_monai.cli.scores import compare_scores
from dira_monai.utils.errors import InputError


def evaluated(folder, text, dice=(0.5,)):
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation/metrics.csv").write_text(text)
    images = [{"image": f"{number}.png", "label": "l.png"} for number in range(len(dice))]
    content = {"dataset_dir": "/data", "task": "segmentation", "class_names": ["background", "a"], "test": images}
    (folder / "datalist.json").write_text(json.dumps(content))
    rows = [f"/data/{number}.png,{value},{value}\n" for number, value in enumerate(dice)]
    (folder / "evaluation/val_mean_dice_raw.csv").write_text("".join(rows))
    return folder


def test_runs_stand_side_by_side(tmp_path):
    first = evaluated(tmp_path / "a", "val_mean_dice,0.5\nval_hd95_mm,3.25\n")
    second = evaluated(tmp_path / "b", "val_mean_dice,0.75\nval_extra,nan\n")
    (second / "panel.png").write_bytes(b"")
    head, *rows, told, difference, picture = compare_scores([[first], [second]]).splitlines()
    assert head.split() == [str(first), str(second)]
    assert [row.split() for row in rows] == [
        ["val_mean_dice", "0.5000", "0.7500"],
        ["val_hd95_mm", "3.2500", "-"],
        ["val_extra", "-", "nan"],
    ]
    assert told == (
        "val_mean_dice, 1 test images of 1 patients, one run each, so that chance in training is not counted; "
        "95 % intervals and p of a paired bootstrap, Holm over 1:"
    )
    assert difference == f"{second} - {first}: +0.000 [nan, nan], p nan"
    assert picture == f"picture: {second / 'panel.png'}"
    assert read_scores(first) == {"val_mean_dice": 0.5, "val_hd95_mm": 3.25}


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(InputError, match="needs at least one output folder"):
        compare_scores([])
    with pytest.raises(InputError, match=r"metrics\.csv: no such file; run train.json with evaluate\.json"):
        read_scores(tmp_path)
    broken = evaluated(tmp_path / "c", "val_mean_dice;0.5\n")
    with pytest.raises(InputError, match=r"metrics\.csv: not a table of names and numbers"):
        read_scores(broken)


def test_names_with_commas(tmp_path, command):
    folder, images = tmp_path / "runs,2024", [f"{tmp_path}/scans, 1,5 T/x,{number}.png" for number in range(3)]
    run = evaluated(folder, "", (0.5, 0.7, 0.9))
    content = json.loads((run / "datalist.json").read_text())
    content["test"] = [{"image": image, "label": "l.png"} for image in images]
    (run / "datalist.json").write_text(json.dumps(content))
    metrics = {"val_mean_dice": 0.7, "val_dice_tumor, necrotic": 0.7}
    dice = torch.tensor([[0.5], [0.7], [0.9]])
    write_metrics_reports(run / "evaluation", images, metrics, {"val_mean_dice": dice}, None, ",", "csv")
    status, out, _ = command("scores", str(run), str(run))
    assert (status, "+0.000" in out.splitlines()[-1]) == (0, True)
    assert read_scores(run) == metrics
    assert read_cases(run).result[:, 0].tolist() == pytest.approx([0.5, 0.7, 0.9])


def test_runs_of_several_seeds_are_one_column(tmp_path, command):
    runs = [
        evaluated(tmp_path / name, f"val_mean_dice,{mean}\n", (mean, mean + 0.1))
        for name, mean in (("a0", 0.5), ("a1", 0.6), ("b0", 0.7), ("b1", 0.9))
    ]
    status, out, _ = command("scores", f"{runs[0]},{runs[1]}", f"{runs[2]},{runs[3]}")
    _, row, told, difference = out.splitlines()
    assert (status, row.split()) == (0, ["val_mean_dice", "0.5500", "0.8000"])
    assert "2 test images of 2 patients, 2 runs each; 95 %" in told
    assert "- " in difference
    assert ": +0.250 [" in difference
