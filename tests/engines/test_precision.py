"""Precision auto: chosen by a measurement, and said."""

from contextlib import nullcontext

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


@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_of_maps_shorter_than_the_kernel_are_those_of_float32(kernel, spatial_dims):
    sizes = [(2, 4, 4)[:spatial_dims], (4, 2, 1)[:spatial_dims], (1,) * spatial_dims]
    context = precision.autocast(CPU, "bf16")
    for size in sizes:
        layer = (torch.nn.Conv2d, torch.nn.Conv3d)[spatial_dims - 2](8, 16, kernel, stride=2 - size[0] % 2, padding=2)
        images, gradients = torch.rand(2, 8, *size), []
        for entered in (context, context, nullcontext()):
            torch.full((2**16,), float("nan"))  # what freed memory may hold
            layer.zero_grad()
            with entered:
                out = layer(images)
            out.float().square().sum().backward()
            gradients.append(layer.weight.grad.clone())
        assert torch.equal(gradients[0], gradients[2])
        assert torch.equal(gradients[1], gradients[2])


def test_other_convolutions_are_in_half_precision():
    with precision.autocast(CPU, "bf16"):
        image, kernel = torch.rand(1, 4, 5), torch.rand(2, 1, 3, 3)
        assert torch.conv2d(image, weight=kernel, padding=1).dtype == torch.bfloat16  # without a batch, by keyword
        assert torch.conv2d(image[:, :2], weight=kernel, padding=1).dtype == torch.float32
        assert torch.nn.Conv3d(1, 2, 3, padding=1)(torch.rand(1, 1, 3, 4, 5)).dtype == torch.bfloat16
    with precision.autocast(CPU, "fp32"):
        assert torch.nn.Conv3d(1, 2, 3, padding=1)(torch.rand(1, 1, 2, 4, 5)).dtype == torch.float32
