import copy
import math

import numpy as np
import pytest
import torch
from monai.optimizers import WarmupCosineSchedule
from pretrain_bundle import parsed
from torch import nn
from trainer_runs import assert_same, basic_unet

from dira_monai.objectives.byol import BYOL
from dira_monai.objectives.siamese import SimSiam
from dira_monai.optimizers.groups import optimizer_class, param_groups_lars, rate_groups, trainable_parameters
from dira_monai.optimizers.lars import LARS
from dira_monai.optimizers.schedules import FlooredCosineSchedule
from dira_monai.utils.errors import InputError
from dira_monai.utils.resuming import fast_forward, load_optimizer

pytestmark = pytest.mark.usefixtures("seeded")

WEIGHT = [nn.Parameter(torch.ones(1))]


def follow_by_hand(weights, gradients, lr, momentum, weight_decay, trust, adapted):
    """The definition, in float64, one tensor at a time."""
    weights = [w.astype(np.float64) for w in weights]
    velocities = [np.zeros_like(w) for w in weights]
    for step in gradients:
        for i, gradient in enumerate(step):
            change = gradient.astype(np.float64) + weight_decay * weights[i]
            own, length = math.sqrt((weights[i] ** 2).sum()), math.sqrt((change**2).sum())
            if adapted and own > 0 and length > 0:
                change = change * trust * own / length
            velocities[i] = momentum * velocities[i] + change
            weights[i] = weights[i] - lr * velocities[i]
    return weights


def steps_of(optimizer, parameters, gradients):
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.from_numpy(gradient)
        optimizer.step()


def random_case(steps=3):
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (5,), (2, 3, 1, 2), (2, 2)]
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    weights[3][:] = 0  # a norm of 0
    gradients = [[rng.standard_normal(shape).astype(np.float32) for shape in shapes] for _ in range(steps)]
    gradients[1][0][:] = 0
    return weights, gradients


@pytest.mark.parametrize("adapted", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lars_follows_its_definition(adapted, weight_decay, momentum):
    weights, gradients = random_case()
    parameters = [nn.Parameter(torch.from_numpy(w.copy())) for w in weights]
    options = {"lr": 0.5, "momentum": momentum, "weight_decay": weight_decay, "trust": 0.02, "adapted": adapted}
    steps_of(LARS(parameters, **options), parameters, gradients)
    for parameter, expected in zip(parameters, follow_by_hand(weights, gradients, **options), strict=True):
        torch.testing.assert_close(parameter.detach(), torch.from_numpy(expected).float())


def test_without_scaling_lars_is_torchs_sgd():
    weights, gradients = random_case(5)
    found = []
    for kind, options in ((LARS, {"adapted": False}), (torch.optim.SGD, {})):
        parameters = [nn.Parameter(torch.from_numpy(w.copy())) for w in weights]
        steps_of(kind(parameters, lr=0.1, momentum=0.9, weight_decay=0.01, **options), parameters, gradients)
        found.append([p.detach() for p in parameters])
    torch.testing.assert_close(*found)


def test_the_first_step_of_rate_1_moves_a_tensor_by_its_share_whatever_the_gradient():
    for scale in (1e-6, 1.0, 1e6):
        weight = nn.Parameter(torch.randn(4, 5))
        before = weight.detach().clone()
        weight.grad = scale * torch.randn(4, 5)
        LARS([weight], lr=1.0, trust=0.01).step()
        torch.testing.assert_close((weight.detach() - before).norm() / before.norm(), torch.tensor(0.01))


def test_parameters_without_gradient_stay_and_the_closures_loss_is_returned():
    first, second = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([first, second], lr=0.1)
    assert optimizer.step() is None

    def closure():
        loss = (first**2).sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 4
    assert first[0, 0] < 1
    assert_same(second.detach(), torch.ones(2, 2))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: LARS(WEIGHT, lr=-1.0), "lr must not be negative, got -1.0"),
        (lambda: LARS(WEIGHT, lr=0.1, weight_decay=-0.1), "weight_decay must not be negative, got -0.1"),
        (lambda: LARS(WEIGHT, lr=0.1, momentum=1.0), "momentum must be at least 0 and less than 1, got 1.0"),
        (lambda: LARS(WEIGHT, lr=0.1, trust=0.0), "trust must be positive, got 0.0"),
        (lambda: FlooredCosineSchedule(LARS(WEIGHT, lr=0.1), 0, 1, floor=1.5), r"floor must lie in \[0, 1\], got 1.5"),
        (
            lambda: rate_groups(nn.Linear(1, 1), SimSiam(basic_unet()), ["queue"]),
            r"fixed_rate must name parts .* \(projector, predictor\), got queue",
        ),
        *(
            (lambda name=name: optimizer_class(name), f"optimizer_name must be LARS or .* got '{name}'")
            for name in ("Lars", "Any", "lr_scheduler")
        ),
    ],
)
def test_values_out_of_range_are_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


def test_param_groups_lars_exempt_biases_and_norms(spatial_dims):
    network = basic_unet(spatial_dims)
    byol = BYOL(network, 4)
    exempt, weights = param_groups_lars(network, byol, bias_learning_rate=0.02)
    assert {p.ndim for p in exempt["params"]} == {1}
    assert {p.ndim for p in weights["params"]} == {2, spatial_dims + 2}
    ids = [id(p) for group in (exempt, weights) for p in group["params"]]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {id(p) for p in trainable_parameters(network, byol)}  # without the key branch
    optimizer = LARS([exempt, weights], lr=0.5, weight_decay=0.1)
    rates, decays, adapted = ([g[name] for g in optimizer.param_groups] for name in ("lr", "weight_decay", "adapted"))
    assert (rates, decays, adapted) == ([0.02, 0.5], [0.0, 0.1], [False, True])
    (only,) = param_groups_lars(nn.Linear(2, 2, bias=False), nn.ReLU(), 0.1)  # an empty group is left out
    assert [p.ndim for p in only["params"]] == [2]


def test_loaded_moments_go_on_with_the_new_rate():
    weights, gradients = random_case(4)
    runs = []
    for broken in (False, True):
        parameters = [nn.Parameter(torch.from_numpy(w.copy())) for w in weights]
        groups = [{"params": parameters[:2], "lr": 0.2, "adapted": False, "weight_decay": 0.0}]
        groups.append({"params": parameters[2:]})
        optimizer = LARS([dict(group) for group in groups], lr=0.5, weight_decay=0.1)
        steps_of(optimizer, parameters, gradients[:2])
        if broken:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = LARS([dict(group) for group in groups], lr=0.25, weight_decay=0.1)
            load_optimizer(optimizer, state, None, "checkpoint.pt")
        else:
            optimizer.param_groups[1]["lr"] = 0.25
        assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.25]
        assert [group["adapted"] for group in optimizer.param_groups] == [False, True]
        steps_of(optimizer, parameters, gradients[2:])
        runs.append([p.detach() for p in parameters])
    assert_same(*runs)


def rates_of(schedule, steps):
    """Rates of all groups at each step."""
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr())
        schedule.optimizer.step()
        schedule.step()
    return rates


def expected_factor(step, warmup, total, floor, start):
    if step < warmup:
        return start + (1 - start) * step / warmup
    return floor + (1 - floor) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


@pytest.mark.parametrize(("warmup", "floor"), [(0, 0.0), (3, 0.001), (4, 0.25)])
def test_both_rates_of_barlow_twins_follow_the_schedule(warmup, floor):
    network = nn.Linear(2, 2)
    optimizer = LARS(param_groups_lars(network, nn.ReLU(), bias_learning_rate=0.0048), lr=0.2)
    schedule = FlooredCosineSchedule(optimizer, warmup, 10, floor=floor, warmup_multiplier=0.01)
    for step, rates in enumerate(rates_of(schedule, 11)):
        factor = expected_factor(step, warmup, 10, floor, 0.01)
        assert rates == pytest.approx([0.0048 * factor, 0.2 * factor], rel=1e-9, abs=1e-12)


def test_without_a_floor_the_schedule_is_monais():
    rates = []
    for kind in (WarmupCosineSchedule, FlooredCosineSchedule):
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.3)
        schedule = kind(optimizer, warmup_steps=2, t_total=9, warmup_multiplier=0.1)
        rates.append([rate for (rate,) in rates_of(schedule, 10)])
    assert rates[0] == pytest.approx(rates[1])


def test_a_resumed_schedule_stands_where_the_unbroken_one_does():
    schedules = [
        FlooredCosineSchedule(LARS(nn.Linear(1, 1).parameters(), lr=0.2), 2, 12, floor=0.1, warmup_multiplier=0.1)
        for _ in range(2)
    ]
    rates_of(schedules[0], 7)
    fast_forward(schedules[1], 7)
    assert schedules[0].get_last_lr() == schedules[1].get_last_lr()


def test_the_predictors_rate_stays():
    network = basic_unet()
    simsiam = SimSiam(network)
    (group,) = rate_groups(network, simsiam)  # no fixed parts
    assert [id(p) for p in group["params"]] == [id(p) for p in trainable_parameters(network, simsiam)]
    assert "fixed_rate" not in group
    groups = rate_groups(network, simsiam, ["predictor"])
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in simsiam.predictor.parameters()]
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in trainable_parameters(network, simsiam)}
    optimizer = torch.optim.SGD(groups, lr=0.4)
    schedule = FlooredCosineSchedule(optimizer, 2, 8, warmup_multiplier=0.01)
    for step, rates in enumerate(rates_of(schedule, 9)):
        assert rates == pytest.approx([0.4, 0.4 * expected_factor(step, 2, 8, 0, 0.01)], abs=1e-12)


@pytest.mark.parametrize(
    ("spatial_dims", "method", "batch_size", "rate", "bias_rate", "arguments"),
    [
        (2, "barlow_twins", 256, 0.2, 0.0048 / 0.024, {"weight_decay": 1e-6, "trust": 0.001}),
        (2, "byol", 256, 0.2, 0.2, {"weight_decay": 1.5e-6, "trust": 0.001}),
        (2, "simclr", 256, 0.3, 0.3, {"weight_decay": 1e-6, "trust": 0.001}),
        (2, "simsiam", 256, 0.05, None, {"weight_decay": 1e-4}),
        (2, "gravis", 16, 0.001, None, {}),
        (2, "pcrlv2", 64, 0.01, None, {"weight_decay": 1e-4}),
        (3, "pcrlv2", 32, 0.001, None, {"weight_decay": 1e-4}),
    ],
)
def test_a_method_has_its_published_rates_at_their_batch(spatial_dims, method, batch_size, rate, bias_rate, arguments):
    parser = parsed(spatial_dims, ["train", method], batch_size=batch_size)
    assert parser.get_parsed_content("learning_rate") == pytest.approx(rate)
    assert parser.get_parsed_content("optimizer_name") == ("LARS" if "trust" in arguments else "SGD")
    assert parser.get_parsed_content("optimizer_arguments") == {"momentum": 0.9} | arguments
    if bias_rate is not None:
        assert parser.get_parsed_content("bias_learning_rate") == pytest.approx(bias_rate)


@pytest.mark.parametrize(
    ("spatial_dims", "method", "warmup", "floor"),
    [
        (2, "barlow_twins", 10, 0.001),
        (3, "barlow_twins", 10, 0.001),
        (2, "byol", 10, 0),
        (2, "simclr", 10, 0),
        (2, "simsiam", 0, 0),
        (3, "simsiam", 0, 0),
        (2, "voco", 5, 0),
        (3, "voco", 5, 0),
    ],
)
def test_a_method_has_its_published_schedule(spatial_dims, method, warmup, floor):
    network = {"_target_": "BasicUNet", "spatial_dims": spatial_dims, "features": [4] * 6}
    parser = parsed(spatial_dims, ["train", method], network_def=network, iterations=2, max_epochs=15)
    optimizer, schedule, objective = map(parser.get_parsed_content, ("optimizer", "lr_scheduler", "objective"))
    fixed = {id(p) for p in objective.predictor.parameters()} if method == "simsiam" else set()
    for step, rates in enumerate(rates_of(schedule, 31)):
        rate = expected_factor(step, 2 * warmup, 30, floor, 0.01)
        expected = [1.0 if id(group["params"][0]) in fixed else rate for group in optimizer.param_groups]
        factors = [lr / base for lr, base in zip(rates, schedule.base_lrs, strict=True)]
        assert factors == pytest.approx(expected, abs=1e-9)
    assert (1.0 in factors) == (method == "simsiam")  # the rate of its predictor stays


def test_optimizers_are_found_by_name():
    assert optimizer_class("LARS") is LARS
    assert optimizer_class("SGD") is torch.optim.SGD
