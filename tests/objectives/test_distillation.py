"""Distillation: loss and figures from their formulas."""

import pytest
import torch
import torch.nn.functional as F
from objective_views import forward
from trainer_runs import basic_unet, genesis_unet

from dira_monai.networks.encoder_decoder import encode
from dira_monai.objectives.distillation import Distillation
from dira_monai.utils.errors import InputError

STATISTICS = torch.tensor([[1.0, -2.0, 0.5, 3.0], [2.0, 0.5, 0.0, 1.0]])  # the third channel is constant


@pytest.mark.parametrize("distance", ["cosine", "smooth_l1"])
@pytest.mark.parametrize("build", [genesis_unet, basic_unet])
def test_loss_is_the_distance_of_the_projected_map_to_the_standardized_one(build, distance, spatial_dims):
    network = build(spatial_dims)
    objective = Distillation(network, STATISTICS, distance)
    images = torch.rand(3, 1, *[32] * spatial_dims)
    deepest = encode(network, images)[-1].detach()
    teacher = torch.randn(3, 4, *deepest.shape[2:])
    found = forward(objective, network, {"query": images, "teacher": teacher})
    head = objective.head.conv
    student = deepest.movedim(1, -1) @ head.weight.flatten(1).T + head.bias  # (B, *cells, 4)
    mean, deviation = (part.movedim(0, -1) for part in STATISTICS)
    target = (teacher.movedim(1, -1) - mean) / torch.where(deviation > 0, deviation, float("inf"))
    cosine = (student * target).sum(-1) / (student.norm(dim=-1) * target.norm(dim=-1))
    difference = (student - target).abs()
    smooth = torch.where(difference < 1, 0.5 * difference**2, difference - 0.5).mean()
    expected = 1 - cosine.mean() if distance == "cosine" else smooth
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert found["similarity"].item() == pytest.approx(cosine.mean().item(), abs=1e-5)
    assert found["query"].shape == found["key"].shape == (3, 4)


def test_the_teachers_map_is_read_at_the_cells_of_the_network(spatial_dims):
    network = basic_unet(spatial_dims)
    objective = Distillation(network, torch.tensor([[0.0, 0.0], [1.0, 1.0]]), "smooth_l1")
    fine = torch.rand(1, 2, *[8] * spatial_dims)
    halves = fine.reshape(1, 2, *[2, 4] * spatial_dims)
    deepest = torch.zeros(1, network.down_4.convs.conv_1.conv.out_channels, *[2] * spatial_dims)
    views = {"query": None, "teacher": fine}
    found = forward(objective, network, views, [deepest])
    bias = objective.head.conv.bias.detach()
    middle = halves.narrow(3, 1, 2)  # of four cells, the middle is between the second and the third
    for axis in range(1, spatial_dims):
        middle = middle.narrow(3 + 2 * axis, 1, 2)
    target = middle.mean([3 + 2 * axis for axis in range(spatial_dims)])
    student = bias.reshape(1, 2, *[1] * spatial_dims).expand_as(target)
    assert found["loss"].item() == pytest.approx(F.smooth_l1_loss(student, target).item(), rel=1e-4)


def test_the_accuracy_is_that_of_the_means():
    network = basic_unet(2)
    objective = Distillation(network, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    channels = network.down_4.convs.conv_1.conv.out_channels
    torch.nn.init.zeros_(objective.head.conv.bias)
    torch.nn.init.zeros_(objective.head.conv.weight)
    objective.head.conv.weight.data[0, 0] = objective.head.conv.weight.data[1, 1] = 1
    deepest = torch.zeros(2, channels, 1, 1)
    deepest[0, 0], deepest[1, 1] = 1, 1
    teacher = torch.tensor([[3.0, 0.5], [0.5, 3.0]])[:, :, None, None]
    assert forward(objective, network, {"query": None, "teacher": teacher}, [deepest])["accuracy"] == 1
    assert forward(objective, network, {"query": None, "teacher": teacher.flip(0)}, [deepest])["accuracy"] == 0


def test_what_is_wrong_is_named():
    network = basic_unet(2)
    with pytest.raises(InputError, match="distance must be cosine or smooth_l1, got 'l2'"):
        Distillation(network, STATISTICS, "l2")
    with pytest.raises(InputError, match="needs the teacher's map of each image, which DistillationDataset gives"):
        forward(Distillation(network, STATISTICS), network, {"query": torch.rand(2, 1, 16, 16)})
    objective = Distillation(network, STATISTICS)
    assert "says nothing of what the teacher says (similarity 0.010)" in objective.diagnose({"similarity": 0.01})
    assert objective.diagnose({"similarity": 0.3}) is None
