import copy
import math
from collections import deque

import pytest
import torch
import torch.nn.functional as F
from objective_views import forward, make_views
from reference import GOLDEN, unit_rows
from trainer_runs import assert_same, basic_unet, flexible_unet, genesis_unet

from dira_monai.networks.encoder_decoder import decode, encode
from dira_monai.networks.encoder_parts import encoder_names
from dira_monai.networks.heads import ProjectionHead
from dira_monai.objectives.byol import BYOL
from dira_monai.objectives.combined import CombinedObjective
from dira_monai.objectives.gravis import GraVIS
from dira_monai.objectives.moco import MoCo
from dira_monai.objectives.no_objective import NoObjective
from dira_monai.objectives.pcrlv2 import PCRLv2
from dira_monai.objectives.siamese import BarlowTwins, SimSiam
from dira_monai.objectives.simclr import SimCLR
from dira_monai.objectives.visual_words import VisualWords
from dira_monai.objectives.voco import VoCo
from dira_monai.optimizers.groups import trainable_parameters


def make_moco(network=None, **options):
    network = basic_unet() if network is None else network
    return MoCo(network, 8, **({"queue_size": 6} | options))


def shift(module, by=1.0):
    """Weights that are no longer those of the copy."""
    with torch.no_grad():
        for tensor in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
            tensor += by * torch.rand_like(tensor)
    return module


def test_queue_after_a_step_equals_the_published_one():
    moco = MoCo(basic_unet(), 16, queue_size=32)
    before = unit_rows(3, (32, 16))
    moco.queue.copy_(before)
    keys = unit_rows(2, (4, 16))
    moco.enqueue(keys)
    golden = GOLDEN["moco_queue_after"]
    assert moco.pointer == golden["pointer"]
    torch.testing.assert_close(moco.queue[0], torch.tensor(golden["row0"]))
    torch.testing.assert_close(moco.queue[4], torch.tensor(golden["row4"]))
    assert_same(moco.queue, torch.cat([keys, before[4:]]))


@pytest.mark.parametrize("batches", [[3, 5, 1, 7], [6, 6], [1] * 9, [20, 2], [4, 13, 4]])
def test_enqueue_wraps_around_for_batches_of_any_size(batches):
    moco = make_moco()
    expected, place = list(moco.queue.clone()), 0
    keys = F.normalize(torch.randn(sum(batches), 8), dim=1)
    for batch in keys.split(batches):
        moco.enqueue(batch)
        for key in batch:  # one by one
            expected[place], place = key, (place + 1) % 6
        assert_same(moco.queue, torch.stack(expected))
        assert moco.pointer == place
    newest = deque(keys, maxlen=6)
    assert_same(moco.queue.roll(-int(moco.pointer), dims=0)[-len(newest) :], torch.stack(list(newest)))


def test_odd_batches_and_batches_larger_than_the_queue_train():
    network = basic_unet()
    moco = make_moco(network, group_size=2)
    for batch, pointer in ((5, 5), (3, 2), (9, 5), (1, 0)):
        told = forward(moco, network, make_views(batch))
        moco.update(network, told["key"])
        assert told["loss"].isfinite()
        assert moco.pointer == pointer
    assert_same(moco.queue[-1], told["key"][-1])


@pytest.mark.parametrize("make", [lambda network: make_moco(network), lambda network: BYOL(network, 8)])
@pytest.mark.parametrize("build", [basic_unet, flexible_unet, genesis_unet])
def test_the_key_branch_has_no_decoder_and_gets_no_gradient(build, make, spatial_dims):
    network = build(spatial_dims)
    moco = make(network)
    encoder = {name for name, _ in network.named_parameters() if name.startswith(encoder_names(network))}
    assert {name for name, _ in moco.key_encoder.named_parameters()} == encoder
    assert len(encoder) < len(list(network.parameters()))
    features = encode(network, torch.rand(2, 1, *[32] * spatial_dims))
    views = make_views(2, spatial_dims, side=32)
    (forward(moco, network, views, features)["loss"] + decode(network, features).mean()).backward()
    followers = [*moco.key_encoder.parameters(), *moco.key_projector.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in followers)
    learning = [p for name, p in moco.named_parameters() if not name.startswith("key_")]
    assert all(p.grad is not None for p in [*network.parameters(), *learning])
    assert {id(p) for p in trainable_parameters(network, moco)} == {id(p) for p in [*network.parameters(), *learning]}


def test_the_key_branch_shares_no_memory_with_the_network():
    network = genesis_unet()
    moco = make_moco(network)
    before = copy.deepcopy(moco.state_dict())
    shift(network)
    assert_same(moco.state_dict(), before)
    network = basic_unet()
    moco = make_moco(network)
    before = copy.deepcopy(moco.state_dict())
    forward(moco, network, make_views(4))["loss"].backward()  # moves nothing without batch norm
    assert_same(moco.state_dict(), before)


def test_loss_is_the_cross_entropy_of_the_own_key_against_the_queue(spatial_dims):
    network = basic_unet(spatial_dims)
    moco = make_moco(network, temperature=0.5)
    shift(moco.key_encoder, 0.2)
    views = make_views(5, spatial_dims)
    told = forward(moco, network, views)

    query = moco.projector(encode(network, views["query"])[-1])
    key = moco.key_projector(encode(moco.key_encoder, views["key"])[-1])
    torch.testing.assert_close(told["query"], query)
    torch.testing.assert_close(told["key"], key)
    positive = (query * key).sum(1).double()
    negative = (query @ moco.queue.T).double()
    expected = -(positive / 0.5 - torch.cat([positive[:, None], negative], 1).div(0.5).exp().sum(1).log()).mean()
    torch.testing.assert_close(told["loss"], expected.float())
    torch.testing.assert_close(told["accuracy"], (positive > negative.max(1).values).float().mean())
    assert not told["key"].requires_grad


@pytest.mark.parametrize("pooled_norm", [False, True])
def test_projector_averages_the_map_and_gives_unit_length(pooled_norm):
    projector = ProjectionHead(3, 5, 4, pooled_norm)
    features = torch.rand(6, 3, 4, 6)
    means = features.mean((2, 3))
    if pooled_norm:
        means = (means - means.mean(0)) / (means.var(0, unbiased=False) + 1e-5).sqrt()
    first, _, second = list(projector)[-3:]
    expected = second(first(means).clamp(min=0))
    expected = expected / expected.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(projector(features), expected)
    torch.testing.assert_close(projector(features[..., None].expand(-1, -1, -1, -1, 2)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_embeddings_are_float32_of_unit_length_under_autocast(dtype):
    network = basic_unet()
    moco = make_moco(network)
    with torch.autocast("cpu", dtype=dtype):
        told = forward(moco, network, make_views(4))
    for name in ("query", "key"):
        assert told[name].dtype == torch.float32
        torch.testing.assert_close(told[name].norm(dim=1), torch.ones(4))
    moco.update(network, told["key"])
    assert moco.queue.dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "steps", "momentum", "size"),
    [(300, 620, 0.9808, 104), (10**6, 10**6, 0.999, 2 * 996), (3, 8, 0.2236, 8)],
)
def test_what_is_left_open_follows_from_the_run(images, steps, momentum, size, capsys):
    moco = make_moco(basic_unet(), momentum=None, queue_size=None)
    CombinedObjective([moco], [1.0]).fit_to(steps, range(images), 8)
    assert moco.momentum_at(0) == moco.momentum_at(1) == pytest.approx(momentum, abs=1e-4)
    assert moco.momentum ** (steps / 4) < 0.05 + 1e-6
    assert len(moco.queue) == size
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"MoCo: momentum {moco.momentum:g} (")
    assert f"queue_size {size} (" in line
    later = make_moco(basic_unet(), queue_size=None)  # an evaluation, which fits nothing, takes what there is
    later.load_state_dict(moco.state_dict())
    assert torch.equal(later.queue, moco.queue)


def test_a_given_queue_stays_and_is_warned_of_where_it_holds_images_several_times(caplog, capsys):
    moco = make_moco(basic_unet(), momentum=0.9, queue_size=4096)
    moco.fit_to(620, range(300), 16)
    assert (moco.momentum, len(moco.queue), capsys.readouterr().out) == (0.9, 4096, "")
    assert "each query meets its own image 13.7 times among its negatives; queue_size None takes 32" in caplog.text
    moco.fit_to(620, range(4096), 16)
    assert len(caplog.records) == 1


def test_images_are_read_only_where_something_depends_on_them(caplog):
    class Unread(list):
        @property
        def regions(self):
            raise NotImplementedError("an image is read")

    make_moco(basic_unet(), momentum=0.9, queue_size=300).fit_to(620, Unread(range(300)), 16)
    make_moco(basic_unet(), momentum=None, queue_size=300).fit_to(620, Unread(range(300)), 16)
    assert caplog.text == ""
    for queue_size in (None, 301):
        with pytest.raises(NotImplementedError):
            make_moco(basic_unet(), momentum=0.9, queue_size=queue_size).fit_to(620, Unread(range(300)), 16)


@pytest.mark.parametrize(("batch", "group_size"), [(7, 3), (4, 1), (6, 6), (5, 32), (7, 2), (21, 4)])
def test_keys_of_shuffled_groups_equal_unshuffled_keys_without_batch_norm(batch, group_size, spatial_dims):
    network = basic_unet(spatial_dims)
    moco = make_moco(network, group_size=group_size).train()
    views = make_views(batch, spatial_dims)
    expected = moco.key_projector(encode(moco.key_encoder, views["key"])[-1])
    sizes = []
    moco.key_projector.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    torch.testing.assert_close(forward(moco, network, views)["key"], expected)
    assert sum(sizes) == batch
    assert min(sizes) >= min(group_size, batch)


def test_each_shuffled_group_has_batch_statistics_of_its_own():
    network = genesis_unet()
    moco = make_moco(network, group_size=3).train()
    views = make_views(6)
    order = sorted(range(6), key=lambda i: int(views["seed"][i]))
    assert order != list(range(6))
    expected = torch.empty(6, 8)
    alone = copy.deepcopy(moco)
    for group in (order[:3], order[3:]):
        expected[group] = alone.key_projector(encode(alone.key_encoder, views["key"][group])[-1])
    key = forward(moco, network, views)["key"]
    torch.testing.assert_close(key, expected)
    whole = moco.key_projector(encode(moco.key_encoder, views["key"])[-1])
    assert (key - whole).abs().max() > 1e-3


@pytest.mark.parametrize(("batch", "sizes"), [(3, [3]), (7, [7]), (8, [4, 4]), (33, [17, 16]), (64, [32, 32])])
def test_no_query_has_the_batch_statistics_of_its_key(batch, sizes):
    network = genesis_unet()
    moco = make_moco(network).train()
    seen = []
    moco.key_projector.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    views = make_views(batch)
    before = forward(moco, network, views)["key"]
    assert seen == sizes
    last = int(views["seed"].argsort()[-1])
    views["key"][last] = 1 - views["key"][last]  # changes the statistics of its own group alone
    same = (forward(moco, network, views)["key"] == before).all(dim=1)
    assert int(same.sum()) == (sizes[0] if len(sizes) > 1 else 0)


def test_keys_of_validation_do_not_depend_on_the_batch():
    network = genesis_unet()
    moco = make_moco(network, group_size=2)
    shift(moco.key_encoder, 0.1)
    network.eval()
    moco.eval()
    views = make_views(5)
    together = forward(moco, network, views)["key"]
    single = [forward(moco, network, {name: part[i : i + 1] for name, part in views.items()})["key"] for i in range(5)]
    torch.testing.assert_close(together, torch.cat(single))


@pytest.mark.parametrize("average_buffers", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("kind", [MoCo, BYOL])
def test_the_key_branch_is_a_moving_average_of_the_network(kind, momentum, average_buffers, spatial_dims):
    network = genesis_unet(spatial_dims)
    options = {"final_momentum": momentum, "average_buffers": average_buffers, "pooled_norm": True}
    objective = kind(network, 4, momentum=momentum, **options)
    pairs = [(objective.key_encoder, shift(network)), (objective.key_projector, shift(objective.projector))]
    before = copy.deepcopy([slow.state_dict() for slow, _ in pairs])
    objective.update(network, None)
    for (slow, fast), old in zip(pairs, before, strict=True):
        weights, fast = dict(slow.named_parameters()), fast.state_dict()
        for name, tensor in slow.state_dict().items():
            follows = name in weights or (average_buffers and tensor.is_floating_point())
            expected = momentum * old[name] + (1 - momentum) * fast[name] if follows else old[name]
            torch.testing.assert_close(tensor, expected)
        assert any(name.endswith("running_mean") for name in old)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"momentum": 0.9, "final_momentum": 1.0}, [0.9, 0.925, 0.95, 1.0]),  # the cosine of 60 degrees is 1/2
        ({"momentum": 0.9}, [0.9] * 4),
    ],
)
def test_momentum_moves_along_a_cosine(options, values):
    moco = make_moco(**options)
    assert [moco.momentum_at(progress) for progress in (0.0, 1 / 3, 0.5, 1.0)] == pytest.approx(values)
    assert BYOL(basic_unet(), momentum=0.9).momentum_at(1 / 3) == pytest.approx(0.925)  # to 1 unless told otherwise


def test_update_uses_the_momentum_of_its_progress():
    network = basic_unet()
    moco = make_moco(network, momentum=0.0, final_momentum=1.0)
    shift(network)
    before = copy.deepcopy(moco.key_encoder.state_dict())
    moco.update(network, torch.empty(0, 8), progress=1.0)
    assert_same(moco.key_encoder.state_dict(), before)
    moco.update(network, torch.empty(0, 8), progress=0.0)
    fast = network.state_dict()
    assert_same(moco.key_encoder.state_dict(), {name: fast[name] for name in before})


def test_hidden_size_is_the_deepest_number_of_channels_unless_given():
    assert make_moco().projector[0].weight.shape == (8, 8)
    moco = make_moco(hidden_size=5)
    assert [moco.projector[0].out_features, moco.key_projector[2].in_features] == [5, 5]


def test_the_queue_starts_with_unit_length_in_random_directions():
    queue = MoCo(basic_unet(), 64, queue_size=50).queue
    torch.testing.assert_close(queue.norm(dim=1), torch.ones(50))
    assert (queue @ queue.T - torch.eye(50)).abs().max() < 0.6


def test_a_state_dict_restores_queue_pointer_and_key_branch():
    network = genesis_unet()
    moco = make_moco(network)
    told = forward(moco, network, make_views(4))
    moco.update(shift(network), told["key"])
    other = make_moco(genesis_unet())
    other.load_state_dict(moco.state_dict())
    network.eval(), moco.eval(), other.eval()
    views = make_views(3, seed=1)
    assert_same(forward(other, network, views), forward(moco, network, views))
    assert other.pointer == 4


JUDGES = {
    **{kind.__name__: kind for kind in (BarlowTwins, BYOL, GraVIS, PCRLv2, SimCLR, SimSiam, VoCo)},
    "MoCo": lambda network: MoCo(network, queue_size=6),
    "VisualWords": lambda network: VisualWords(network, classes=3),
    "NoObjective": lambda network: NoObjective(),
    "CombinedObjective": lambda network: CombinedObjective([SimSiam(network), make_moco(network)], [1, 1]),
}


@pytest.mark.parametrize("kind", JUDGES)
def test_a_metric_that_is_not_a_number_is_not_judged(kind):
    objective = JUDGES[kind](basic_unet())
    assert (objective.momentum_at(0.5) > 0) == (kind in ("MoCo", "BYOL", "CombinedObjective"))
    assert objective.diagnose(dict.fromkeys([*objective.metrics, "collapse"], math.nan)) is None
