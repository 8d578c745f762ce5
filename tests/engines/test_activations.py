"""checkpoint_activations: the same numbers, and nothing kept within a block."""

import copy
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import BasicUNet, DynUNet, SegResNet
from trainer_runs import basic_unet, flexible_unet, make_trainer, record, run_epochs

from dira_monai import checkpoint_activations, encoder_only
from dira_monai.engines.precision import autocast
from dira_monai.utils.errors import InputError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("seeded")


def build(spatial_dims, wanted):
    return checkpoint_activations(basic_unet(spatial_dims), wanted)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_gives_the_same_numbers(spatial_dims, precision):
    found = []
    for wanted in (False, True):
        torch.manual_seed(0)
        options = {"patch_size": (16,) * spatial_dims, "precision": precision}
        trainer = make_trainer(partial(build, wanted=wanted), **options)
        outputs = record(trainer)
        run_epochs(trainer, 2)
        found.append(([output["loss"] for output in outputs], trainer.network.state_dict()))
    (losses, state), (others, weights) = found
    assert losses == others
    assert all(torch.equal(state[name], weights[name]) for name in state)


NETWORKS = {
    "BasicUNet": lambda dims: BasicUNet(dims, features=(4, 4, 8, 8, 8, 4)),
    "SegResNet": lambda dims: SegResNet(dims, init_filters=8, out_channels=1, norm=("group", {"num_groups": 4})),
    "DynUNet": lambda dims: DynUNet(dims, 1, 1, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 8, 8, 8], res_block=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_keep_their_inputs_alone_and_gradients_are_the_same(name, spatial_dims):
    kept, gradients, network = [], [], NETWORKS[name](spatial_dims)
    for wanted in (False, True):
        own = checkpoint_activations(copy.deepcopy(network), wanted)
        assert own.state_dict().keys() == network.state_dict().keys()
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: (s.setdefault(t.data_ptr(), t.nbytes), t)[1], lambda t: t
        ):
            out = own(torch.rand(2, 1, *[32] * spatial_dims, generator=torch.Generator().manual_seed(0)))
        weights = {p.data_ptr() for p in own.parameters()}
        kept.append(sum(size for place, size in sizes.items() if place not in weights))
        out.square().mean().backward()
        gradients.append([p.grad for p in own.parameters()])
    assert kept[1] < 0.6 * kept[0]
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_gradients_of_small_maps_in_bf16_are_those_without(spatial_dims):
    network, gradients = BasicUNet(spatial_dims, features=(4, 4, 8, 8, 8, 4)), []
    context = autocast(torch.device("cpu"), "bf16")
    for own in (network, checkpoint_activations(copy.deepcopy(network), True)):
        with context:
            out = own(torch.rand(2, 1, *[32] * spatial_dims, generator=torch.Generator().manual_seed(0)))
        torch.full((2**16,), float("nan"))  # what freed memory may hold
        out.float().square().sum().backward()
        gradients.append([p.grad for p in own.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_copies_have_blocks_of_their_own(spatial_dims):
    network = checkpoint_activations(BasicUNet(spatial_dims, features=(4, 4, 8, 8, 8, 4)), True)
    other = encoder_only(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert other.conv_0(torch.rand(1, 1, *[32] * spatial_dims)).abs().sum() > 0


def test_batch_norm_is_refused(spatial_dims):
    network = flexible_unet(spatial_dims)
    assert checkpoint_activations(network, False) is network
    said = "checkpoint_activations needs a network without batch norm, which would count each batch twice; "
    with pytest.raises(InputError, match=re.escape(said) + r"encoder\.\S+ of this FlexibleUNet is BatchNorm.d; leave"):
        checkpoint_activations(network, True)


@pytest.mark.parametrize("bundle", ["dira_pretrain_3d", "dira_finetune_segmentation_3d"])
@pytest.mark.parametrize("names", [["train"], ["train", "multi_gpu_train"]])
def test_bundles_checkpoint_their_network(bundle, names):
    parser = ConfigParser()
    parser.read_config([str(ROOT / "bundles" / bundle / "configs" / f"{name}.json") for name in names])
    given = {
        "device": "$torch.device('cpu')",
        "network_def#features": [4, 4, 8, 8, 8, 4],
        "checkpoint_activations": True,
    }
    for name, value in given.items():
        parser[name] = value
    assert "forward" in vars(parser.get_parsed_content("network").conv_0)
