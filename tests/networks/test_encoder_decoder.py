import re
from importlib.util import find_spec

import pytest
import torch
from monai.networks.nets import BasicUNet, FlexibleUNet, UNet
from reference import GOLDEN, assert_matches, filled, layout, normal
from small_networks import (
    basic_unet,
    dyn_unet,
    flexible_unet,
    genesis_unet,
    needs_nnunet,
    nnunet,
    no_skip_unet,
    plain_nnunet,
    seg_resnet,
    seg_resnet_with_dropout,
    swin_unetr,
)

from dira_monai.networks.encoder_decoder import (
    decode,
    decoder_maps,
    downsampling,
    encode,
    encoder_only,
    encoder_state,
    feature_channels,
    output_layer,
    without_skips,
)
from dira_monai.networks.encoder_parts import encoder_names
from dira_monai.networks.genesis_unet import GenesisUNet
from dira_monai.networks.size_checks import check_patch_size, size_divisor
from dira_monai.utils.errors import InputError
from dira_monai.weights.smp import smp_to_stock

needs_einops = pytest.mark.skipif(find_spec("einops") is None, reason="SwinUNETR needs einops")
BUILDERS = [
    flexible_unet,
    no_skip_unet,
    seg_resnet,
    seg_resnet_with_dropout,
    basic_unet,
    dyn_unet,
    pytest.param(swin_unetr, marks=needs_einops),
    genesis_unet,
    pytest.param(nnunet, marks=needs_nnunet),
    pytest.param(plain_nnunet, marks=needs_nnunet),
]
every_network = pytest.mark.parametrize("build", BUILDERS)


def small_image(network, batch=1):
    first, *rest = downsampling(network)
    return torch.rand(batch, 1, 2 * first, *rest)


@every_network
@pytest.mark.parametrize("train", [False, True])
def test_decode_of_encode_is_forward(build, spatial_dims, train):
    network = build(spatial_dims).train(train)
    x = small_image(network)
    torch.manual_seed(0)
    expected = network(x)
    torch.manual_seed(0)  # of the dropout
    assert torch.equal(decode(network, encode(network, x)), expected)


@every_network
def test_features_are_fine_to_coarse_and_decoder_maps_coarse_to_fine(build, spatial_dims):
    network = build(spatial_dims).eval()
    x = small_image(network)
    features = encode(network, x)
    copies = [feature.clone() for feature in features]
    maps = decoder_maps(network, features)
    assert all(torch.equal(feature, copy) for feature, copy in zip(features, copies, strict=True))
    sizes, upwards = ([tensor[0, 0].numel() for tensor in tensors] for tensors in (features, maps))
    assert sizes == sorted(set(sizes), reverse=True)
    smaller = tuple(n // factor for n, factor in zip(x.shape[2:], downsampling(network), strict=True))
    assert features[-1].shape[2:] == smaller
    assert upwards == sorted(upwards)
    assert upwards[0] > sizes[-1]  # the deepest map is the encoder's
    assert upwards[-1] == x[0, 0].numel()
    assert torch.equal(output_layer(network)(maps[-1]), network(x))


@every_network
def test_without_skips_the_output_depends_on_nothing_but_the_deepest_map(build, spatial_dims):
    network = build(spatial_dims).train()  # in evaluation a narrow network may be dead behind its ReLUs

    def decoded(maps):
        torch.manual_seed(0)  # of the dropout
        return decode(network, maps)

    features = [feature.detach().requires_grad_() for feature in encode(network, small_image(network, batch=2))]
    copies = [feature.detach().clone() for feature in features]
    left = without_skips(features)
    assert left[-1] is features[-1]
    assert [feature.shape for feature in left] == [feature.shape for feature in features]
    assert not any(feature.any() for feature in left[:-1])
    assert all(torch.equal(feature, copy) for feature, copy in zip(features, copies, strict=True))
    output = decoded(left)
    others = [torch.rand_like(feature) for feature in features[:-1]]
    assert torch.equal(decoded(without_skips([*others, features[-1]])), output)
    assert torch.equal(decoded(features), output) == (build is no_skip_unet)
    output.square().sum().backward()
    assert [feature.grad is None for feature in features] == [True] * (len(features) - 1) + [False]
    assert features[-1].grad.abs().sum() > 0


@every_network
def test_encoder_only_gives_equal_maps_without_the_decoder(build, spatial_dims):
    network = build(spatial_dims).eval()
    encoder = encoder_only(network)
    x = small_image(network)
    for ours, theirs in zip(encode(encoder, x), encode(network, x), strict=True):
        assert torch.equal(ours, theirs)
    assert {name for name, _ in encoder.named_children()} == set(encoder_names(network))
    own, others = ({id(p): p.numel() for p in module.parameters()} for module in (encoder, network))
    assert not own.keys() & others.keys()
    assert sum(own.values()) < sum(others.values())
    sum(feature.sum() for feature in encode(encoder.train(), small_image(encoder))).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []  # all is used


@every_network
def test_encoder_state_carries_the_encoder_into_a_fresh_network(build):
    network, fresh = build(2).eval(), build(2).eval()
    state = encoder_state(network)
    assert all(tensor.data_ptr() == network.state_dict()[key].data_ptr() for key, tensor in state.items())
    missing, unexpected = fresh.load_state_dict(state, strict=False)
    assert unexpected == []
    assert not set(missing) & set(encoder_only(fresh).state_dict())
    x = small_image(network)
    for ours, theirs in zip(encode(fresh, x), encode(network, x), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(fresh(x), network(x))  # the decoder stayed


def test_encoder_state_of_dynunet_has_both_names_of_a_block():
    state = encoder_state(dyn_unet(2))
    assert torch.equal(
        state["bottleneck.conv1.conv.weight"], state["skip_layers.next_layer.next_layer.conv1.conv.weight"]
    )
    assert not [key for key in state if "upsample" in key]


@every_network
def test_feature_channels_leaves_the_network_and_the_random_numbers_alone(build, spatial_dims):
    expected = {
        flexible_unet: 512,
        no_skip_unet: 512,
        basic_unet: 10,
        dyn_unet: 6,
        swin_unetr: 192,
        genesis_unet: 8,
        nnunet: 8,
        plain_nnunet: 8,
    }
    network = build(spatial_dims).train()
    state, numbers = {key: tensor.clone() for key, tensor in network.state_dict().items()}, torch.get_rng_state()
    assert feature_channels(network) == expected.get(build, 32)
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(module.training for module in network.modules())


def test_feature_channels_of_several_input_channels():
    assert feature_channels(encoder_only(genesis_unet(2, in_channels=3))) == 8


def test_subclasses_are_known():
    class Wider(BasicUNet):
        pass

    network = Wider(2, features=(2, 2, 2, 2, 4, 2))
    x = torch.rand(1, 1, 32, 16)
    assert torch.equal(decode(network, encode(network, x)), network(x))


@pytest.mark.parametrize(
    "call",
    [
        lambda network: encode(network, torch.rand(1, 1, 8, 8)),
        lambda network: decode(network, []),
        lambda network: decoder_maps(network, []),
        output_layer,
        encoder_only,
        encoder_state,
        feature_channels,
        downsampling,
        size_divisor,
        lambda network: check_patch_size(network, [8, 8]),
    ],
)
def test_unknown_class_is_refused(call):
    known = "BasicUNet, DynUNet, FlexibleUNet, GenesisUNet, PlainConvUNet, ResidualEncoderUNet, SegResNet, SwinUNETR"
    with pytest.raises(TypeError, match=rf"UNet .*known are {known}\.$"):
        call(UNet(2, 1, 1, channels=(2, 4), strides=(2,)))


@pytest.mark.parametrize(
    ("build", "divisor"),
    [
        (flexible_unet, (32, 32, 32)),
        (seg_resnet, (4, 4, 4)),
        (basic_unet, (1, 1, 1)),
        (dyn_unet, (4, 2, 2)),
        (swin_unetr, (32, 32, 32)),
        (genesis_unet, (8, 8, 8)),
        pytest.param(nnunet, (4, 2, 2), marks=needs_nnunet),
    ],
)
def test_size_divisor(build, divisor):
    assert size_divisor(build(3)) == divisor


@pytest.mark.parametrize(
    ("build", "patch_size"),
    [
        *[(flexible_unet, size) for size in [(32, 32), (64, 32), (96, 96), (100, 96), (16, 32), (48, 64), (63, 64)]],
        *[(seg_resnet, size) for size in [(4, 4), (8, 12), (6, 8), (8, 2)]],
        *[(basic_unet, size) for size in [(32, 16), (33, 47), (16, 63), (16, 16), (31, 31), (15, 64)]],
        *[(dyn_unet, size) for size in [(8, 2), (4, 4), (12, 6), (4, 2), (6, 4), (8, 3)]],
        *[
            pytest.param(swin_unetr, size, marks=needs_einops)
            for size in [(64, 32), (64, 64), (32, 32), (48, 64), (64, 16)]
        ],
        *[(genesis_unet, size) for size in [(8, 8), (16, 24), (12, 8), (4, 8)]],
    ],
)
def test_check_patch_size_agrees_with_the_network(build, patch_size):
    network = build(2).eval()
    try:
        runs = network(torch.rand(1, 1, *patch_size)).shape[2:] == patch_size
    except (RuntimeError, ValueError):
        runs = False
    try:
        check_patch_size(network, patch_size)
        fits = True
    except InputError as error:
        fits = False
        check_patch_size(network, [int(n) for n in re.findall(r"\d+", str(error).rpartition("[")[2])])  # the advice
    assert fits == runs


@pytest.mark.parametrize(
    ("build", "patch_size", "rule", "nearest"),
    [
        (flexible_unet, [100, 100], "FlexibleUNet: each axis must be a multiple of 32", [96, 96]),
        (flexible_unet, [120, 0], "FlexibleUNet: each axis must be a multiple of 32", [128, 32]),
        (seg_resnet, [9, 9], "SegResNet: each axis must be a multiple of 4", [8, 8]),
        (basic_unet, [40, 15], "BasicUNet: each axis must be at least 16", [40, 16]),
        (basic_unet, [17, 30], "BasicUNet: .* 16, and one axis at least twice that for instance norm", [17, 32]),
        (dyn_unet, [9, 9], r"DynUNet: each axis must be a multiple of \[4, 2\]", [8, 10]),
        (swin_unetr, [32, 32], "SwinUNETR: .* 32, and one axis at least twice that for instance norm", [64, 32]),
        (genesis_unet, [10, 15], "GenesisUNet: each axis must be a multiple of 8", [8, 16]),
    ],
)
def test_check_patch_size_names_the_rule_and_the_nearest_size(build, patch_size, rule, nearest):
    size, advice = re.escape(str(patch_size)), re.escape(str(nearest))
    with pytest.raises(InputError, match=f"patch_size {size} does not fit {rule}; the nearest that does is {advice}"):
        check_patch_size(build(2), patch_size)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: check_patch_size(genesis_unet(3), [64, 64]),
            r"patch_size \[64, 64\] has 2 axes, but this GenesisUNet takes 3",
        ),
        (
            lambda: encode(dyn_unet(2, deep_supervision=True), torch.rand(1, 1, 8, 4)),
            "deep_supervision=False, got True",
        ),
        *(
            (lambda features=features: GenesisUNet(features=features), "features must be four even numbers, got")
            for features in ((64, 128, 256), (2, 4, 6, 7))
        ),
    ],
)
def test_what_a_network_cannot_do_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_instance_norm_of_the_decoder_does_not_matter():
    check_patch_size(flexible_unet(2, norm="instance"), [32, 32])
    check_patch_size(basic_unet(2, norm="batch"), [16, 16])


def test_flexible_unet_gives_the_published_maps_and_logits():
    network = FlexibleUNet(
        3, 1, "resnet50", spatial_dims=2, pre_conv=None, norm=("batch", {"eps": 1e-5, "momentum": 0.1})
    )
    network.load_state_dict(smp_to_stock(filled(layout("dira_unet_resnet50_keys.json"), 2000)))
    network.eval()
    with torch.no_grad():
        features = encode(network, 0.5 + 0.1 * normal(51, (2, 3, 64, 64)))
        logits = decode(network, features)
    golden = GOLDEN["unet_resnet50"]
    assert_matches(features[-1], golden["deepest_features"])
    assert_matches(logits, golden["logits_before_sigmoid"])
    assert_matches(logits.sigmoid(), golden["restored"])


@needs_nnunet
@pytest.mark.parametrize("build", [nnunet, plain_nnunet])
def test_deep_supervision_of_nnunet_is_refused(build):
    with pytest.raises(ValueError, match=r"UNet must have deep_supervision=False, got True"):
        encode(build(2, deep_supervision=True), torch.rand(1, 1, 16, 8))
