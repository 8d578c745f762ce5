import copy
import math

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from objective_runs import make_run, train
from objective_views import forward
from trainer_runs import assert_same, basic_unet, flexible_unet, genesis_unet, record_views

from dira_monai.networks.encoder_decoder import decoder_channels, decoder_maps, encode, without_skips
from dira_monai.networks.size_checks import check_patch_size
from dira_monai.objectives.pcrlv2 import PCRLv2
from dira_monai.utils.errors import InputError
from dira_monai.weights.pretrained import load_pretrained


def make_views(batch, spatial_dims=2, small=2, side=16):
    shape = (1, *[side] * spatial_dims)
    query, key, target = torch.rand(3, batch, *shape)
    return {"query": query, "key": key, "target": target, "local": torch.rand(batch, small, *shape)}


def shift(objective):
    """Heads whose norms are not the identity."""
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter += 0.3 * torch.rand_like(parameter)
    return objective


def pyramid(network, image):
    return [m.double() for m in decoder_maps(network, without_skips(encode(network, image)))]


def norm_by_hand(norm, x):
    mean = sum(x) / len(x)
    variance = sum((row - mean) ** 2 for row in x) / len(x)
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight.double() + norm.bias.double()


def head_by_hand(head, features):
    """Embedding and prediction of one map, float64."""
    z = norm_by_hand(head.norm, torch.stack([sample.reshape(len(sample), -1).mean(1) for sample in features]))
    first, norm, _, last = head.predictor
    hidden = norm_by_hand(norm, z @ first.weight.double().T).clamp(min=0)
    return z, hidden @ last.weight.double().T + last.bias.double()


def distance_by_hand(one, other):
    """-1/2 [cos(p1, z2) + cos(p2, z1)], mean over the batch."""
    (z1, p1), (z2, p2) = one, other
    total = 0.0
    for a, b in [*zip(p1, z2, strict=True), *zip(p2, z1, strict=True)]:
        total = total - (a @ b) / (a.square().sum() * b.square().sum()).sqrt() / 2
    return total / len(z1)


def restored_by_hand(restorer, features, size):
    """The middle level's image of one map, float64."""
    restorer = copy.deepcopy(restorer).double().train()
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    return 1 / (1 + torch.exp(-F.interpolate(restorer(features), size=size, mode=mode, align_corners=False)))


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 1.0), (0.25, 0.5 + 0.5 * math.sqrt(0.5)), (0.5, 0.5), (1.0, 0.0)])
@pytest.mark.parametrize("weight", [1.0, 20.0])
def test_beta_falls_along_a_cosine_over_the_training(progress, beta, weight):
    network = genesis_unet()
    objective = PCRLv2(network, middle_weight=weight)
    objective.progress = progress
    told = forward(objective, network, make_views(3))
    assert float(told["beta"]) == pytest.approx(beta, abs=1e-7)
    torch.testing.assert_close(told["loss"], told["global"] + told["local"] + beta * weight * told["middle"])
    assert told["middle"] > 0.01


@pytest.mark.parametrize(
    ("build", "channels"),
    [(basic_unet, [8, 8, 4, 4, 1]), (genesis_unet, [6, 4, 2, 1]), (flexible_unet, [8, 8, 4, 4, 2, 1])],
)
def test_every_level_of_the_decoder_has_heads_of_its_width(build, channels, spatial_dims):
    network = build(spatial_dims)
    found = [m.shape[1] for m in decoder_maps(network, encode(network, torch.rand(2, 1, *[64] * spatial_dims)))]
    before = copy.deepcopy(network.state_dict())
    assert decoder_channels(network) == channels == [*found, 1]
    assert_same(network.state_dict(), before)
    objective = PCRLv2(network)
    assert [head.norm.num_features for head in objective.heads] == channels[:-1]
    assert [head.predictor[0].out_features for head in objective.heads] == [2 * n for n in channels[:-1]]


def test_the_loss_equals_explicit_formulas_at_the_levels_that_were_drawn(spatial_dims):
    network = basic_unet(spatial_dims)
    objective = shift(PCRLv2(network))
    views = make_views(3, spatial_dims)
    for step in range(3):
        objective.step.fill_(step)
        whole, parts = objective._pairs(2)
        told = forward(objective, network, views)
        crops = [views["query"], views["key"], *views["local"].unbind(1)]
        pyramids = [pyramid(network, crop) for crop in crops]
        ((first, second, level),) = whole
        assert (first, second) == (0, 1)
        assert [pair[:2] for pair in parts] == [(0, 2), (0, 3), (1, 2), (1, 3)]

        def heads(view, at, pyramids=pyramids):
            return head_by_hand(objective.heads[at], pyramids[view][at])

        expected = distance_by_hand(heads(0, level), heads(1, level))
        torch.testing.assert_close(told["global"].double(), expected, rtol=1e-4, atol=1e-5)
        pairs = [distance_by_hand(heads(a, at), heads(b, at)) for a, b, at in parts]
        torch.testing.assert_close(told["local"].double(), sum(pairs) / 4, rtol=1e-4, atol=1e-5)
        image = restored_by_hand(objective.restorers[level], pyramids[0][level], views["target"].shape[2:])
        expected = ((image - views["target"].double()) ** 2).mean()
        torch.testing.assert_close(told["middle"].double(), expected, rtol=1e-4, atol=1e-5)
        units = [F.normalize(heads(view, 0)[0], dim=1) for view in (0, 1)]
        torch.testing.assert_close([told["query"].double(), told["key"].double()], units, rtol=1e-4, atol=1e-4)
        mean = units[0].mean(0)
        spread = math.sqrt(8) * (units[0] - mean).square().mean(0).sqrt().mean()
        torch.testing.assert_close(told["deviation"].double(), spread, rtol=1e-3, atol=1e-5)
        assert set(told) == {"loss", "query", "key", *objective.metrics}


def test_validation_takes_every_level_and_changes_nothing():
    network = genesis_unet().eval()
    objective = shift(PCRLv2(network)).eval()
    views = make_views(3)
    before = copy.deepcopy(objective.state_dict())
    told = forward(objective, network, views)
    assert_same(objective.state_dict(), before)
    parts = []
    for level in range(3):
        alone = PCRLv2(network, levels=[level]).eval()
        alone.heads[0].load_state_dict(objective.heads[level].state_dict())
        alone.restorers[0].load_state_dict(objective.restorers[level].state_dict())
        parts.append(forward(alone, network, views))
    for name in ("global", "local", "middle"):
        torch.testing.assert_close(told[name], torch.stack([part[name] for part in parts]).mean())
    objective.step += 5
    assert_same(forward(objective, network, views), told)


def test_the_levels_follow_from_the_step_alone_and_are_all_drawn_alike():
    network = basic_unet()
    objective, other = PCRLv2(network), PCRLv2(network)
    drawn = []
    for _ in range(200):
        torch.manual_seed(len(drawn))
        whole, parts = objective._pairs(6)
        assert (whole, parts) == other._pairs(6)
        drawn.append([pair.level for pair in (*whole, *parts)])
        if len(drawn) < 3:
            forward(objective, network, make_views(2, side=32))  # leaves the step
        objective.update(network, None)
        other.load_state_dict(objective.state_dict())
    counts = torch.stack([(torch.tensor(drawn) == level).float().mean(0) for level in range(4)])
    assert counts.shape == (4, 13)
    assert (counts - 0.25).abs().max() < 0.12  # four standard deviations
    assert objective.state_dict()["step"] == 200


def test_levels_may_be_left_out_and_stand_in_any_order():
    network = genesis_unet()
    objective = PCRLv2(network, levels=[2, 0])
    assert [head.norm.num_features for head in objective.heads] == [2, 6]
    assert forward(objective, network, make_views(3))["query"].shape == (3, 6)  # of the coarsest


def test_weights_of_skip_connections_get_no_gradient_and_all_others_do():
    network = basic_unet()
    objective = PCRLv2(network)
    for _ in range(12):
        told = forward(objective, network, make_views(4))
        maps = decoder_maps(network, without_skips(encode(network, make_views(4)["query"])))
        (told["loss"] + network.final_conv(maps[-1]).mean()).backward()
        objective.update(network, None)
    for name, skip in (("upcat_1", 4), ("upcat_2", 4), ("upcat_3", 8), ("upcat_4", 8)):
        gradient = getattr(network, name).convs.conv_0.conv.weight.grad
        assert not gradient[:, :skip].any()
        assert gradient[:, skip:].any()
    assert all(p.grad is not None for p in [*network.parameters(), *objective.parameters()])


@pytest.mark.parametrize("missing", ["key", "local"])
def test_missing_views_are_refused(missing):
    network = genesis_unet()
    views = make_views(2)
    features = encode(network, views["query"])
    del views[missing]
    with pytest.raises(InputError, match="set views_per_image 2, local_crop, local_count"):
        forward(PCRLv2(network), network, views, features)


def test_small_views_that_do_not_fit_the_network_are_refused():
    network = BasicUNet(3, 1, 1, features=(4, 4, 8, 8, 8, 4))  # instance norm
    views = make_views(2, 3, side=32) | {"local": torch.rand(2, 6, 1, 16, 16, 16)}
    with pytest.raises(InputError, match=r"local_crop: patch_size \[16, 16, 16\] .* does is \[32, 16, 16\]"):
        forward(PCRLv2(network), network, views)
    check_patch_size(network, [32, 32, 32])  # that of the overlay


def test_collapse_is_named_in_the_methods_own_terms():
    network = genesis_unet()
    objective = PCRLv2(network)
    views = make_views(4)
    healthy = forward(objective, network, views)
    assert objective.diagnose({"deviation": float(healthy["deviation"]), "collapse": 0.4}) is None
    alike = forward(objective, network, {name: view[:1].expand_as(view) for name, view in views.items()})
    assert "the same for every image" in objective.diagnose({"deviation": float(alike["deviation"]), "collapse": 0.4})
    assert "on one line (collapse 0.995 of 1)" in objective.diagnose({"deviation": 0.9, "collapse": 0.995})


def test_pcrl_trains_restores_and_compares(spatial_dims):
    trainer = make_run("pcrl", spatial_dims, seed=3, epochs=2, epoch_length=10)
    made = record_views(trainer)
    found = train(trainer)["metrics"]
    assert made[0]["local"].shape == (4, 2, 1, *[8] * spatial_dims)
    torch.testing.assert_close(found["loss"], found["contrastive"] + found["restoration"])
    assert found["restoration"][-4:].mean() < 0.9 * found["restoration"][:4].mean()
    beta = [(1 + math.cos(math.pi * step / 20)) / 2 for step in range(1, 21)]
    torch.testing.assert_close(found["contrastive_beta"], torch.tensor(beta))
    assert trainer.objective.step == 20


def test_the_similarities_of_a_batch_are_learned(spatial_dims):
    network = genesis_unet(spatial_dims)
    objective, views = PCRLv2(network), make_views(4, spatial_dims)
    optimizer = torch.optim.SGD([*network.parameters(), *objective.parameters()], lr=0.01, momentum=0.9)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(forward(objective, network, views)["loss"])
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-4:]) / 4 < sum(losses[:4]) / 4 - 0.1


def test_a_segmentation_network_with_skip_connections_starts_from_it(tmp_path, capsys, spatial_dims):
    trainer = make_run("pcrl", spatial_dims, basic_unet, side=32, lr=0.01)
    trainer.run()
    torch.save(trainer.export_states()["model.pt"], tmp_path / "model.pt")
    norm = ("group", {"num_groups": 2})
    network = BasicUNet(spatial_dims, 1, 3, features=(4, 4, 8, 8, 8, 4), norm=norm)
    load_pretrained(network, tmp_path / "model.pt", minimum_coverage=1.0)
    pretrained = trainer.network.state_dict()
    same = [name for name, tensor in network.state_dict().items() if torch.equal(tensor, pretrained[name])]
    assert set(pretrained) - set(same) == {"final_conv.weight", "final_conv.bias"}  # three classes
    image = torch.rand(2, 1, *[32] * spatial_dims)
    assert network(image).shape == (2, 3, *[32] * spatial_dims)
    features = encode(network, image)
    assert not torch.allclose(decoder_maps(network, features)[-1], decoder_maps(network, without_skips(features))[-1])
