"""SimCLR, and the sum of several objectives."""

import copy
import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from objective_views import forward, make_views
from reference import normal
from torch import nn
from trainer_runs import assert_same, basic_unet, make_trainer, record, run_epochs

from dira_monai.losses.contrastive import nt_xent, nt_xent_accuracy
from dira_monai.networks.encoder_decoder import encode
from dira_monai.objectives.byol import BYOL
from dira_monai.objectives.combined import CombinedObjective
from dira_monai.objectives.moco import MoCo
from dira_monai.objectives.objective import Objective
from dira_monai.objectives.siamese import BarlowTwins, SimSiam
from dira_monai.objectives.simclr import SimCLR
from dira_monai.optimizers.groups import trainable_parameters
from dira_monai.utils.errors import InputError
from dira_monai.weights.files import load_module

ROOT = Path(__file__).parents[2]


def nt_xent_by_hand(z1, z2, temperature):
    """Every view, one after the other, in float64."""
    unit = F.normalize(torch.cat([z1, z2]).double(), dim=1)
    total, count = 0, len(z1)
    for i, row in enumerate(unit @ unit.T / temperature):
        others = torch.cat([row[:i], row[i + 1 :]])
        total = total + others.logsumexp(0) - row[(i + count) % (2 * count)]
    return total / (2 * count)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_nt_xent_equals_explicit_loops_in_float64(temperature, length):
    z1, z2 = length * normal(1, (5, 7)), length * normal(2, (5, 7))
    expected = nt_xent_by_hand(z1, z2, temperature).float()
    torch.testing.assert_close(nt_xent(z1, z2, temperature), expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_nt_xent_of_orthogonal_images(temperature):
    basis = torch.eye(6)[:4]
    expected = math.log(1 + 6 * math.exp(-1 / temperature))  # cosine 1 with the partner, 0 with six other views
    torch.testing.assert_close(nt_xent(basis, basis, temperature), torch.tensor(expected))


def test_nt_xent_of_one_image_is_zero():
    assert nt_xent(torch.rand(1, 3), torch.rand(1, 3)) == 0
    assert nt_xent_accuracy(torch.rand(1, 3), torch.rand(1, 3)) == 1


def test_nt_xent_has_the_gradient_of_float64_at_a_small_temperature():
    gradients = []
    for loss in (nt_xent, nt_xent_by_hand):
        z1, z2 = (normal(seed, (4, 6)).requires_grad_() for seed in (1, 2))
        gradients.append(torch.autograd.grad(loss(z1, z2, 0.01), (z1, z2)))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])  # both views learn


def test_accuracy_counts_views_whose_nearest_is_the_partner():
    z1 = torch.eye(3)
    z2 = torch.eye(3)[[0, 2, 1]]  # the second and third image's views are those of each other
    torch.testing.assert_close(nt_xent_accuracy(z1, z2), torch.tensor(1 / 3))
    assert nt_xent_accuracy(z1, 5 * z1) == 1
    assert nt_xent_accuracy(torch.ones(3, 2), torch.ones(3, 2)) == 0  # ties are misses


def test_loss_of_the_objective_is_that_of_both_views_of_the_network(spatial_dims):
    network = basic_unet(spatial_dims)
    simclr = SimCLR(network, 8, temperature=0.3)
    views = make_views(4, spatial_dims)
    told = forward(simclr, network, views)
    query, key = (simclr.projector(encode(network, views[name])[-1]) for name in ("query", "key"))
    torch.testing.assert_close(told["query"], query)
    torch.testing.assert_close(told["key"], key)
    expected = nt_xent_by_hand(query.detach(), key.detach(), 0.3).float()
    torch.testing.assert_close(told["loss"].detach(), expected, rtol=1e-5, atol=1e-6)
    assert told["chance"] == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("accuracy", "chance", "ill"), [(0.05, 0.03, False), (0.04, 0.03, True), (0.0, 0.03, True), (1.0, 1.0, False)]
)
def test_simclr_says_when_it_guesses(accuracy, chance, ill):
    said = SimCLR(basic_unet()).diagnose({"accuracy": accuracy, "chance": chance, "collapse": 0.2})
    assert ill == (said is not None and "no more often than by guessing" in said)


def make_combined(network, **options):
    moco = MoCo(network, 8, queue_size=10, momentum=0.5)
    return CombinedObjective([moco, SimSiam(network), SimSiam(network, 4)], [1.0, 0.5, 2.0], **options)


def test_the_combined_loss_is_the_weighted_sum(spatial_dims):
    network = basic_unet(spatial_dims)
    combined = make_combined(network)
    views = make_views(4, spatial_dims)
    features = encode(network, views["query"])
    told = forward(combined, network, views, features)
    alone = [forward(objective, network, views, features) for objective in combined.objectives]
    expected = alone[0]["loss"] + 0.5 * alone[1]["loss"] + 2 * alone[2]["loss"]
    torch.testing.assert_close(told["loss"], expected)
    assert combined.metrics == (
        *("moco_loss", "moco_accuracy", "simsiam_loss", "simsiam_deviation"),
        *("simsiam2_loss", "simsiam2_deviation"),
    )
    for name, own in zip(("moco", "simsiam", "simsiam2"), alone, strict=True):
        torch.testing.assert_close(told[f"{name}_loss"], own["loss"].detach())
    assert_same(told["query"], alone[0]["query"])
    assert_same(told["key"], alone[0]["key"])


def test_each_objective_gets_its_own_keys_and_the_progress():
    network = basic_unet()
    combined = make_combined(network)
    combined.objectives = nn.ModuleList([combined.objectives[1], combined.objectives[0], combined.objectives[2]])
    combined.names = ["simsiam", "moco", "simsiam2"]
    moco = combined.objectives[1]
    combined.progress = 0.25
    keys = []
    for seed in (1, 2):  # two batches before a step
        views = make_views(3, seed=seed)
        told = forward(combined, network, views)
        keys.append(moco._keys(views["key"], views["seed"]))
    assert told["key"].shape == (3, 8)
    assert [objective.progress for objective in combined.objectives] == [0.25] * 3
    combined.update(network, told["key"], 0.25)
    torch.testing.assert_close(moco.queue[:6], torch.cat(keys))
    assert moco.pointer == 6
    forward(combined.eval(), network, make_views(3))  # validation leaves no keys behind
    combined.update(network, None, 0.25)
    assert moco.pointer == 6  # nothing new


def test_combined_objectives_train_and_accumulate(spatial_dims):
    trainer = make_trainer(patch_size=(16,) * spatial_dims, accumulation_steps=2)
    trainer.objective = make_combined(trainer.network)
    trainer.optimizer = torch.optim.Adam(trainable_parameters(trainer.network, trainer.objective), lr=0.01)
    outputs = record(trainer)
    run_epochs(trainer, 2)
    assert trainer.objective.objectives[0].pointer == 16 % 10
    assert trainer.epoch_metrics()["momentum"] == 0.5
    assert {"contrastive_moco_accuracy", "contrastive_simsiam2_deviation"} <= set(outputs[-1])


def test_a_queue_inside_may_have_another_length():
    network = basic_unet()
    combined = make_combined(network)
    assert combined.resized_on_load == ("objectives.0.queue",)
    state = copy.deepcopy(combined.state_dict())
    other = CombinedObjective([MoCo(network, 8, queue_size=4), SimSiam(network), SimSiam(network, 4)], [1, 1, 1])
    load_module(other, state, "checkpoint.pt", "objective")
    assert_same(other.objectives[0].queue, state["objectives.0.queue"][-4:])


def test_the_needs_of_all_parts_are_met():
    class Pyramid(Objective):
        skip_connections = False
        needs_decoder = True
        metrics = ()

    network = basic_unet()
    plain = CombinedObjective([SimSiam(network), BYOL(network)], [1, 1])
    assert (plain.skip_connections, plain.needs_decoder) == (True, False)
    assert plain.momentum_at(0.0) == 0.996
    mixed = CombinedObjective([SimSiam(network), Pyramid()], [1, 1])
    assert (mixed.skip_connections, mixed.needs_decoder) == (False, True)
    assert mixed.momentum_at(0.5) == 0


def test_sentences_of_all_parts_are_joined():
    network = basic_unet()
    combined = CombinedObjective([SimSiam(network), BarlowTwins(network)], [1, 1])
    healthy = {"simsiam_deviation": 0.9, "barlowtwins_diagonal": 0.5, "barlowtwins_off_diagonal": 0.1, "collapse": 0.1}
    assert combined.diagnose(healthy) is None
    said = combined.diagnose(healthy | {"simsiam_deviation": 0.01, "barlowtwins_diagonal": 0.0})
    assert "SimSiam" in said
    assert "; the components of Barlow Twins'" in said


def test_each_part_is_judged_by_the_collapse_of_its_own_queries():
    network = basic_unet()
    parts = SimSiam(network), MoCo(network, 8, queue_size=10, pooled_norm=True), SimCLR(network, 8, pooled_norm=True)
    combined = CombinedObjective(parts, [1, 1, 1])
    views = make_views(4)
    healthy = {"simsiam_deviation": 0.9, "moco_accuracy": 1.0, "simclr_accuracy": 1.0, "simclr_chance": 0.1}

    def judged():
        forward(combined, network, views)
        return combined.diagnose(healthy | {"collapse": 0.1})  # of the first

    assert combined.diagnose(healthy) is None  # nothing seen yet
    assert judged() is None
    for part, sentence in (
        (parts[1], "the query embeddings of MoCo have collapsed to one direction (collapse 1.000 of 1)"),
        (parts[2], "the embeddings of simclr have collapsed to one direction (collapse 1.000 of 1)"),
    ):
        nn.init.zeros_(part.projector[-1].weight)  # leaves the bias
        said = judged()
        assert said.startswith(sentence)
        part.projector[-1].reset_parameters()
        combined.eval()
        assert judged() == said  # validation is not judged
        combined.train()
        assert judged() is None


def test_the_example_in_the_documentation_makes_an_objective(spatial_dims, tmp_path):
    section = (ROOT / "docs/objectives.md").read_text().partition("## Several at once")[2]
    example = re.search(r"```json\n(.*?)```", section, re.DOTALL)[1]
    (tmp_path / "own.json").write_text(example)
    parser = ConfigParser()
    parser.read_config([ROOT / f"bundles/dira_pretrain_{spatial_dims}d/configs/train.json", tmp_path / "own.json"])
    channels = {"in_channels": 1, "out_channels": 1, "features": [4, 4, 8, 8, 8, 4]}
    network_def = {"_target_": "BasicUNet", "spatial_dims": spatial_dims} | channels
    parser.update({"network_def": network_def, "device": "$torch.device('cpu')", "queue_size": 8})
    combined, network = (parser.get_parsed_content(name) for name in ("objective", "network"))
    assert isinstance(combined, CombinedObjective)
    assert [type(part) for part in combined.objectives] == [MoCo, BYOL]
    assert combined.weights == json.loads(example)["objective_def"]["weights"]
    assert len(combined.objectives[0].queue) == 8
    views = make_views(2, spatial_dims, side=32)
    assert forward(combined, network, views)["loss"].isfinite()


@pytest.mark.parametrize(
    ("count", "weights", "sentence"),
    [
        (0, [], "at least one, got 0 for 0"),
        (2, [1.0], "as many weights as objectives are needed, at least one, got 1 for 2"),
        (2, [1.0, -1.0], r"weights must not be negative, got \[1.0, -1.0\]"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(count, weights, sentence):
    network = basic_unet()
    with pytest.raises(InputError, match=sentence):
        CombinedObjective([SimSiam(network) for _ in range(count)], weights)
