"""Precision auto: chosen by a measurement, and said."""

import pytest
import torch

from dira_monai.engines import precision
from dira_monai.utils.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget_choice():
    precision._choose.cache_clear()
    yield
    precision._choose.cache_clear()


@pytest.mark.parametrize(("gain", "chosen"), [(0.6, "fp32"), (1.29, "fp32"), (1.3, "bf16"), (4.0, "bf16")])
def test_auto_takes_bf16_where_it_is_faster_and_says_why(monkeypatch, capsys, gain, chosen):
    monkeypatch.setattr(precision, "measure_gain", lambda device: gain)
    assert precision.settle_precision(CPU, "auto") == chosen
    line = capsys.readouterr().out
    assert line.startswith(f"precision auto: {chosen}, since")
    assert f"{gain:.1f} times" in line
    assert precision.settle_precision(CPU, "auto") == chosen  # the evaluator, after the trainer
    assert capsys.readouterr().out == ""


def test_what_is_given_is_taken_without_a_measurement(monkeypatch, capsys):
    monkeypatch.delattr(precision, "measure_gain")
    assert [precision.settle_precision(CPU, name) for name in precision.PRECISIONS] == ["fp32", "bf16", "fp16"]
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="precision must be one of fp32, bf16, fp16, auto, got 'half'"):
        precision.settle_precision(CPU, "half")


def test_the_gain_is_the_ratio_of_what_both_take(monkeypatch):
    monkeypatch.setattr(precision, "_seconds", lambda layer, images: {4: 6.0, 2: 2.0}[images.element_size()])
    assert precision.measure_gain("cpu") == 3
    monkeypatch.undo()
    assert precision.measure_gain("cpu") > 0
