import copy
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, Dataset
from monai.networks.nets import BasicUNet, FlexibleUNet, ResNet, UNet
from monai.transforms import Compose, Lambdad, RandFlipd, RandGaussianNoised
from torch import nn

from dira_monai.data.datasets import SeededCacheDataset
from dira_monai.data.sampler import SeededSampler
from dira_monai.engines.finetuner import FineTuner
from dira_monai.handlers.early_stop import EarlyStop
from dira_monai.networks.encoder_parts import encoder_parts, layers, mark_pretrained
from dira_monai.networks.size_checks import check_output
from dira_monai.optimizers.groups import param_groups_layer_decay
from dira_monai.utils.errors import InputError

FEATURES = (2, 2, 4, 4, 4, 2)
POOL = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def unet(spatial_dims, norm=("batch", {"affine": True})):
    return BasicUNet(spatial_dims, 1, 2, features=FEATURES, norm=norm)


def sequential(spatial_dims):
    net = unet(spatial_dims)
    chain = [net.conv_0, net.down_1, net.down_2, net.down_3, net.down_4]
    return nn.Sequential(*chain, POOL[spatial_dims](1), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))


def resnet(spatial_dims):
    return ResNet("basic", [1, 1, 1, 1], [2, 2, 4, 4], spatial_dims, 1, num_classes=2, bias_downsample=False)


KINDS = {"unet": unet, "sequential": sequential, "resnet": resnet}


def make_tuner(network, count=4, size=16, **options):
    torch.manual_seed(1)
    dims = 2 if any(isinstance(m, nn.Conv2d) for m in network.modules()) else 3
    shape = copy.deepcopy(network)(torch.zeros(2, 1, *[size] * dims)).shape[1:]
    data = [{"image": torch.randn(1, *[size] * dims), "label": torch.randn(shape)} for _ in range(count)]
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    arguments = {
        "max_epochs": 2,
        "loss_function": nn.MSELoss(),
        "optimizer": torch.optim.SGD(network.parameters(), 0.1),
    }
    return FineTuner(device=torch.device("cpu"), train_data_loader=loader, network=network, **(arguments | options))


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_encoder_rests_with_its_batch_statistics_and_then_learns(kind, spatial_dims):
    network = KINDS[kind](spatial_dims)
    tuner = make_tuner(network, freeze_epochs=1)
    inside = {id(t) for part in encoder_parts(network) for t in part.state_dict(keep_vars=True).values()}
    names = {name for name, t in network.state_dict(keep_vars=True).items() if id(t) in inside}
    rest = network.state_dict().keys() - names
    assert names
    assert rest
    states = [copy.deepcopy(network.state_dict())]
    tuner.add_event_handler(Events.EPOCH_COMPLETED, lambda e: states.append(copy.deepcopy(network.state_dict())))
    tuner.run()
    moved = [{n for n in states[0] if not torch.equal(a[n], b[n])} for a, b in pairwise(states)]
    assert moved[0] <= rest
    assert moved[0] >= {name for name in rest if name.endswith("weight") and "norm" not in name.lower()}
    convolutions = {name for name in names if name.endswith("weight") and states[0][name].ndim > 1}
    assert moved[1] >= convolutions
    assert tuner.stage(1) == "encoder frozen"
    assert tuner.stage(2) == ""


def test_the_step_is_that_of_a_plain_training_loop():
    network = unet(2)
    other, tuner = copy.deepcopy(network), make_tuner(network, max_epochs=1)
    optimizer, losses = torch.optim.SGD(other.parameters(), 0.1), []
    tuner.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output["loss"])))
    tuner.run()
    other.train()
    expected = []
    for batch in tuner.data_loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(other(batch["image"]), batch["label"])
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_channels_last_in_memory_changes_no_loss(norm, spatial_dims, monkeypatch):
    found, network = [], unet(spatial_dims, (norm, {"affine": True}))
    for own in (network, copy.deepcopy(network)):
        rate = torch.optim.SGD(own.parameters(), 1e-3)
        tuner, losses = make_tuner(own, size=32, max_epochs=1, optimizer=rate), []
        tuner.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e, losses=losses: losses.append(e.state.output["loss"])
        )
        tuner.run()
        found.append(torch.stack(losses))
        assert any(not p.is_contiguous() for p in own.parameters()) == (own is network)
        monkeypatch.setattr("dira_monai.engines.finetuner.use_channels_last", lambda network: None)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_two_accumulated_batches_are_one_whole_batch(spatial_dims):
    instance = ("instance", {"affine": True})  # batch norm would see halves
    network = unet(spatial_dims, instance)
    other = copy.deepcopy(network)
    halves = make_tuner(network, size=32, max_epochs=1, accumulation_steps=2)
    whole = make_tuner(other, size=32, max_epochs=1)
    data = list(halves.data_loader.dataset)
    whole.data_loader = torch.utils.data.DataLoader(data, batch_size=4)
    whole.state.epoch_length = 1
    halves.run()
    whole.run()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_gradient_is_clipped(clip):
    network = unet(2)
    before = copy.deepcopy(network)
    make_tuner(network, count=2, max_epochs=1, gradient_clip=clip).run()
    change = [a - b for a, b in zip(network.parameters(), before.parameters(), strict=True)]
    length = torch.cat([c.flatten() for c in change]).norm() / 0.1
    assert (length <= 1.001e-3) == (clip is not None)


def test_bf16_trains_and_keeps_weights_in_float32():
    network = unet(2)
    tuner = make_tuner(network, precision="bf16")
    tuner.run()
    assert tuner.state.output["pred"].dtype == torch.bfloat16
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_encoder_parts_are_what_pretraining_fills():
    flexible = FlexibleUNet(1, 1, "resnet10", spatial_dims=2)
    assert encoder_parts(flexible) == [flexible.encoder]
    net = resnet(2)
    assert net.fc not in encoder_parts(net)
    assert len(encoder_parts(sequential(3))) == 5
    assert encoder_parts(nn.Conv2d(1, 1, 3)) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_rates_fall_by_the_factor_with_each_layer(kind, decay):
    network = KINDS[kind](2)
    groups = param_groups_layer_decay(network, 0.1, decay)
    count = len(groups)
    assert [g["lr"] for g in groups] == pytest.approx([0.1 * decay ** (count - 1 - i) for i in range(count)])
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in network.parameters())
    first, last = groups[0]["params"][0], groups[-1]["params"][-1]
    assert first is next(network.parameters())
    assert last is list(network.parameters())[-1]


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_parameters_from_a_file_have_their_share_of_the_rate(decay):
    network = FlexibleUNet(1, 1, "resnet10", spatial_dims=2)
    plain = {id(p): g["lr"] for g in param_groups_layer_decay(network, 0.1, decay) for p in g["params"]}
    loaded = {name for name, _ in network.named_parameters() if not name.startswith("segmentation_head")}
    assert loaded
    mark_pretrained(network, loaded)
    groups = param_groups_layer_decay(network, 0.1, decay, 0.25)
    found = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(plain)
    assert found == pytest.approx(
        {id(p): plain[id(p)] * (0.25 if name in loaded else 1) for name, p in network.named_parameters()}
    )
    assert groups[-1]["lr"] == 0.1  # what logs show
    mark_pretrained(network, ())
    assert {id(p): g["lr"] for g in param_groups_layer_decay(network, 0.1, decay, 0.25) for p in g["params"]} == plain


def test_layers_of_the_flexible_unet_are_blocks_of_encoder_and_decoder_and_the_head():
    network = FlexibleUNet(1, 1, "resnet10", spatial_dims=2)
    parts = layers(network)
    assert parts[0] is network.encoder.conv1
    assert parts[-1] is network.segmentation_head
    assert {network.encoder.layer4, network.decoder.blocks[0]} < set(parts)


def test_parameters_outside_of_all_layers_learn_slowest():
    network = nn.Sequential(nn.Linear(2, 2))
    network.token = nn.Parameter(torch.zeros(1))
    groups = param_groups_layer_decay(network, 1.0, 0.5)
    assert groups[0] == {"params": [network.token], "lr": 0.5}


class Scores:
    """An evaluator whose best epoch follows a list of scores, None where an epoch is not validated."""

    def __init__(self, scores):
        self.scores = scores
        self.state = SimpleNamespace(best_metric=-1, best_metric_epoch=-1, epoch=0)

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.judge)

    def judge(self, engine):
        score = self.scores[engine.state.epoch - 1]
        if score is None:
            return
        self.state.epoch = engine.state.epoch
        if score > self.state.best_metric:
            self.state.best_metric, self.state.best_metric_epoch = score, engine.state.epoch


def stopped(scores, patience, start=0):
    engine = Engine(lambda engine, batch: None)
    scores.attach(engine)
    EarlyStop(scores, patience).attach(engine)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", start))
    engine.run([0], max_epochs=len(scores.scores))
    return engine.state.epoch


@pytest.mark.parametrize(("patience", "last"), [(1, 3), (2, 6), (3, 8), (None, 8)])
def test_training_stops_after_so_many_epochs_without_a_better_score(patience, last):
    assert stopped(Scores([0.1, 0.2, 0.1, 0.3, 0.2, 0.3, 0.35, 0.3]), patience) == last


def test_no_epoch_without_a_validation_ends_the_training():
    assert stopped(Scores([None, None, 0.1, None, None, 0.2, None, None, 0.1, None]), 2) == 9
    assert stopped(Scores([None, None, 0.1, None, None, 0.2]), 1) == 6


def test_early_stop_counts_on_when_resumed():
    scores = Scores([0.3, 0.2, 0.2, 0.2])
    scores.state = SimpleNamespace(best_metric=0.3, best_metric_epoch=1, epoch=0)  # as the checkpoint restores it
    assert stopped(scores, 2, start=2) == 3


def random_transforms(spatial_dims):
    fixed = Lambdad("image", lambda x: x * 2)
    return Compose([fixed, RandFlipd("image", 0.5, spatial_dims - 1), RandGaussianNoised("image", prob=1.0)])


def test_a_sample_is_a_function_of_its_seed_alone(spatial_dims):
    data = [{"image": torch.rand(1, *[4] * spatial_dims)} for _ in range(3)]
    cached = SeededCacheDataset(data, random_transforms(spatial_dims), progress=False)
    loaded = SeededCacheDataset(data, random_transforms(spatial_dims), cache_rate=0.0, progress=False)
    asked = [(0, 5), (2, 2**63 - 1), (1, 7), (0, 6)]
    first = [cached[pair]["image"] for pair in asked]
    again = [loaded[pair]["image"] for pair in reversed(asked)][::-1]
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[0], first[3])
    assert torch.equal(cached[0]["image"], cached[(0, 0)]["image"])


def test_workers_change_no_sample():
    data = [{"image": torch.rand(1, 4, 4)} for _ in range(6)]
    dataset = SeededCacheDataset(data, random_transforms(2), progress=False)
    assert isinstance(dataset, CacheDataset)
    batches = []
    for workers in (0, 2):
        sampler = SeededSampler(Dataset(data), 2, seed=3)
        loader = torch.utils.data.DataLoader(dataset, 2, sampler=sampler, num_workers=workers)
        batches.append(torch.cat([torch.as_tensor(batch["image"]) for batch in loader]))
    assert torch.equal(*batches)


def test_unusable_values_are_refused():
    with pytest.raises(
        InputError, match=r"freeze_epochs must be 0 where the encoder of the network is not known \(Conv2d\)"
    ):
        make_tuner(nn.Conv2d(1, 2, 3, padding=1), freeze_epochs=1)
    with pytest.raises(InputError, match="precision must be one of fp32, bf16, fp16, auto, got 'int8'"):
        make_tuner(unet(2), precision="int8")


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_fits_is_accepted_and_left_as_it_was(kind, spatial_dims):
    network, size = KINDS[kind](spatial_dims), [32] * spatial_dims
    before = copy.deepcopy(network.state_dict())
    check_output(network, 1, size, 2, kind == "unet")
    check_output(network, 1, None, 7, False)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_networks_that_cannot_be_pretrained_are_judged_by_their_output():
    network = UNet(2, 1, 3, channels=(2, 4), strides=(2,))
    check_output(network, 1, [16, 16], 3, True)
    with pytest.raises(InputError, match=r"gives \[3, 16, 16\] for an image of \[15, 15\]"):
        check_output(network, 1, [15, 15], 3, True)


def test_a_network_that_does_not_fit_is_refused():
    instance = unet(2, ("instance", {"affine": True}))
    chain = [instance.conv_0, instance.down_1, instance.down_2, instance.down_3, instance.down_4]
    classifier = nn.Sequential(*chain, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(
        InputError, match=r"images of \[16, 16\] with 1 channels do not fit the Sequential: Expected more"
    ):
        check_output(classifier, 1, [16, 16], 2, False)
    with pytest.raises(InputError, match=r"patch_size \[8, 8\] does not fit BasicUNet: each axis must be at least 16"):
        check_output(instance, 1, [8, 8], 2, True)
    with pytest.raises(InputError, match=r"images of \[32, 32\] with 3 channels do not fit the ResNet"):
        check_output(resnet(2), 3, [32, 32], 2, False)
    with pytest.raises(InputError, match=r"gives \[2\] for an image of \[32, 32\] where \[3\] is needed"):
        check_output(resnet(2), 1, [32, 32], 3, False)
    with pytest.raises(InputError, match=r"gives list for an image"):
        check_output(DoubleOutput(), 1, [4, 4], 1, True)
    with pytest.raises(InputError, match="must be a list with a number for each axis, got 32"):
        check_output(resnet(2), 1, 32, 2, False)


class DoubleOutput(nn.Conv2d):
    """A network with two outputs."""

    def __init__(self):
        super().__init__(1, 1, 1)

    def forward(self, x):
        return [super().forward(x)] * 2
