"""What a teacher makes of images: kept once, under a name that nothing else has, and read where the region lies."""

import os
import re

import numpy as np
import pytest
import torch
from monai.networks.nets import resnet10
from monai.transforms import Compose
from torch import nn
from trainer_runs import basic_unet

from dira_monai.data.distillation import DistillationDataset, load_teacher
from dira_monai.utils.errors import InputError

dims = pytest.mark.parametrize("dims", [2, 3])


def block_means(dims, factor=2.0):
    """A teacher with two channels, factor times the mean of blocks of four voxels and minus it: a known encoder."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[dims](1, 2, 4, stride=4, bias=False)
    nn.init.constant_(kind.weight, factor / 4**dims)
    kind.weight.data[1] *= -1
    return nn.Sequential(kind, {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dims](1)).requires_grad_(False)


def make(images, region, folder, teacher):
    items = [{"image": image} for image in images]
    return DistillationDataset(items, Compose([]), region, cache="none", teacher=teacher, features_dir=folder)


@dims
def test_a_region_has_the_teachers_map_of_its_place(dims, tmp_path, monkeypatch):
    image = torch.rand(1, *(20, 13, 10)[:dims])
    region = [8] * dims
    dataset = make([image], region, tmp_path, block_means(dims))
    starts = iter([[4] * dims, [5, 2, 1][:dims]])
    monkeypatch.setattr(DistillationDataset, "_place", lambda self, image, seed: next(starts))
    aligned, between = dataset[0], dataset[0]
    assert set(aligned) == {"image", "seed", "teacher"}
    corner = tuple(slice(4, 8) for _ in range(dims))
    full = torch.nn.functional.pad(image, [0, 12] * dims)[0]  # zeros behind the end
    assert aligned["teacher"].shape == (2, *[2] * dims)
    expected = 2 * full[corner].mean().item()
    assert aligned["teacher"][:, *[0] * dims].tolist() == pytest.approx([expected, -expected], abs=2e-3)

    def mean_at(*cell):
        return full[tuple(slice(4 * c, 4 * c + 4) for c in cell)].mean().item()

    shares = [5 / 4, 2 / 4, 1 / 4][:dims]  # cells from the first one's
    value = 0.0
    for corner in np.ndindex(*[2] * dims):
        weight, cell = 1.0, []
        for share, side in zip(shares, corner, strict=True):
            cell.append(int(share) + side)
            weight *= share % 1 if side else 1 - share % 1
        value += weight * 2 * mean_at(*cell)
    assert between["teacher"][0, *[0] * dims].item() == pytest.approx(value, abs=2e-3)


@dims
def test_statistics_are_those_of_all_cells(dims, tmp_path):
    images = [torch.rand(1, *[16] * dims) for _ in range(3)]
    found = make(images, [8] * dims, tmp_path, block_means(dims)).statistics
    kernel = block_means(dims)[0]
    cells = torch.stack([kernel(image[None])[0].flatten(1) for image in images])  # (3, 2, cells)
    torch.testing.assert_close(found[0], cells.mean((0, 2)), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], cells.std((0, 2), correction=0), atol=1e-3, rtol=1e-2)


def test_features_are_computed_once_for_each_teacher_region_and_image(tmp_path):
    images = [torch.rand(1, 16, 16), torch.rand(1, 16, 16)]
    first = make(images, [8, 8], tmp_path, block_means(2))
    before = {name: os.stat(tmp_path / name).st_mtime_ns for name in os.listdir(tmp_path)}
    assert set(first.names) == set(before)
    assert make(images[::-1], [8, 8], tmp_path, block_means(2)).names == first.names[::-1]
    assert {name: os.stat(tmp_path / name).st_mtime_ns for name in os.listdir(tmp_path)} == before
    changed = images[0].clone()
    changed[0, 0, 0] += 0.01
    for case in (
        ([changed], [8, 8], block_means(2)),
        ([images[0].half()], [8, 8], block_means(2)),
        (images[:1], [16, 16], block_means(2)),
        (images[:1], [8, 8], block_means(2, factor=3.0)),
    ):
        assert not {*make(case[0], case[1], tmp_path, case[2]).names} & {*before}


def test_images_of_the_command_prepare_have_features_too(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1, 12, 12)).astype(np.uint8)
    np.save(tmp_path / "a.npy", image)
    items = [{"image": str(tmp_path / "a.npy")}]
    options = {"teacher": block_means(2), "features_dir": tmp_path / "features"}
    dataset = DistillationDataset(items, Compose([]), [12, 12], **options)
    expected = 2 * image[0, :4, :4].mean() / 255
    assert dataset[0]["teacher"][0, 0, 0].item() == pytest.approx(expected, abs=1e-3)


def test_features_that_float16_cannot_hold_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"teacher's features of an image of \[8, 8\] voxels are not finite"):
        make([torch.ones(1, 8, 8)], [8, 8], tmp_path, block_means(2, factor=1e6))


@dims
def test_a_teacher_is_a_frozen_copy_with_all_weights_of_the_file(dims, tmp_path):
    student, other = basic_unet(dims), basic_unet(dims)
    torch.save(other.state_dict(), tmp_path / "model.pt")
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    teacher = load_teacher(student, tmp_path / "model.pt")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in teacher.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@dims
def test_a_classifier_of_monai_may_teach(dims, tmp_path):
    network = resnet10(spatial_dims=dims, n_input_channels=1, num_classes=3, conv1_t_stride=2)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    image = torch.rand(1, *[32] * dims)
    dataset = make([image], [32] * dims, tmp_path / "features", load_teacher(network, tmp_path / "model.pt"))
    found = []
    network.layer4.register_forward_hook(lambda module, inputs, output: found.append(output[0].detach()))
    network.eval()(image[None])
    torch.testing.assert_close(dataset[0]["teacher"], found[0], atol=1e-3, rtol=1e-3)


class Pyramid(nn.Module):
    """An encoder of another library: a list of maps, fine to coarse; or what ``change`` makes of the last one."""

    def __init__(self, dims, change=None):
        super().__init__()
        self.blocks = nn.ModuleList([block_means(dims)[0]])
        self.change = change

    def forward(self, x):
        maps = [x, self.blocks[0](x)]
        return maps if self.change is None else self.change(maps[-1])


@dims
def test_any_network_that_gives_maps_may_teach(dims, tmp_path):
    network, image = Pyramid(dims), torch.rand(1, *(24, 16, 16)[:dims])
    nn.init.constant_(network.blocks[0].weight, 0.25)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    dataset = make([image], image.shape[1:], tmp_path / "features", load_teacher(Pyramid(dims), tmp_path / "model.pt"))
    expected = 0.25 * 4**dims * torch.nn.functional.interpolate(image[None], scale_factor=0.25, mode="area")[0]
    torch.testing.assert_close(dataset[0]["teacher"], expected.expand(2, *expected.shape[1:]), atol=1e-2, rtol=1e-3)


@dims
def test_a_teacher_that_gives_no_map_is_refused(dims, tmp_path):
    image = torch.rand(1, *[16] * dims)
    for change, shape in (
        (lambda x: x.movedim(1, -1), [1, *[4] * dims, 2]),
        (lambda x: x.flatten(1), [1, 2 * 4**dims]),
    ):
        with pytest.raises(InputError, match=re.escape(f"makes {shape} of an image of {[1, 1, *[16] * dims]}")):
            make([image], [16] * dims, tmp_path, Pyramid(dims, change))


def test_a_teacher_without_its_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"teacher must name the weights of an encoder, .*, got None"):
        load_teacher(basic_unet(2), None)
    torch.save(Pyramid(3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model.pt: teacher is of another network: 1 of 1 tensors do not fit"):
        load_teacher(Pyramid(2), tmp_path / "model.pt")
