"""Weights from and for nnU-Net: tensors are counted, and features of one volume compared voxel by voxel."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImage, Orientation
from small_networks import basic_unet, dyn_unet, flexible_unet, needs_nnunet, nnunet, plain_nnunet
from weight_files import assert_equal, loaded, saved

from dira_monai.networks.encoder_decoder import encode
from dira_monai.utils.errors import InputError
from dira_monai.weights.convert import export_weights, import_weights
from dira_monai.weights.nnunet import PACKAGE
from dira_monai.weights.pretrained import load_pretrained

both = pytest.mark.parametrize("build", [nnunet, plain_nnunet])


def turned(build, spatial_dims, **options):
    """The network of ``small_networks``, whose axes are of different kinds, with its axes in the opposite order."""
    normal = build(spatial_dims).encoder
    sizes = {"kernel_sizes": [kernel[::-1] for kernel in normal.kernel_sizes]}
    sizes["strides"] = [stride[::-1] for stride in normal.strides]
    return build(spatial_dims, **sizes, **options).eval()


def shaken(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    return network.eval()


def opposite(tensor):
    """The spatial axes of (B, C, *spatial) in the opposite order."""
    return tensor.permute(0, 1, *range(tensor.ndim - 1, 1, -1))


def assert_same_features(ours, theirs, x):
    with torch.no_grad():
        for first, second in zip(encode(ours, x), theirs.encoder(opposite(x)), strict=True):
            torch.testing.assert_close(first, opposite(second), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours(x), opposite(theirs(opposite(x))), atol=1e-4, rtol=1e-4)


@needs_nnunet
@both
def test_export_has_every_name_and_the_same_features(tmp_path, build, spatial_dims):
    source, target = shaken(build(spatial_dims)), turned(build, spatial_dims)
    file = saved({"network": source.state_dict(), "epoch": 1}, tmp_path / "checkpoint.pt")
    lines = export_weights(file, tmp_path / "nnunet.pth", "nnunet")
    count = len(target.state_dict())
    assert lines[:2] == [f"{file}: {count} of {count} tensors", f"{tmp_path / 'nnunet.pth'}: holds network_weights"]
    assert "not stored as RAS" in lines[2]
    target.load_state_dict(loaded(tmp_path / "nnunet.pth")["network_weights"])  # strict
    assert_same_features(source, target, torch.rand(1, 1, 16, *[8] * (spatial_dims - 1)))


@needs_nnunet
@both
def test_import_is_the_inverse_and_takes_one_name_a_tensor(tmp_path, build, spatial_dims):
    source, target = shaken(turned(build, spatial_dims)), build(spatial_dims).eval()
    content = {"network_weights": source.state_dict(), "trainer_name": "nnUNetTrainer", "_best_ema": np.float64(1)}
    file = saved(content, tmp_path / "checkpoint_final.pth")
    with pytest.raises(InputError, match="convert it first with"):
        load_pretrained(target, file)
    lines = import_weights(file, tmp_path / "model.pt")
    parameters = len([*source.parameters()])
    assert lines[0] == f"{file}: {type(source).__name__} of nnU-Net or nnssl"
    assert lines[1] == f"converted: {parameters} of {len(source.state_dict())} tensors"
    assert lines[2] == "dropped: trainer_name, _best_ema"
    assert loaded(tmp_path / "model.pt").keys() == dict(source.named_parameters()).keys()
    load_pretrained(target, tmp_path / "model.pt", minimum_coverage=1)
    assert_same_features(target, source, torch.rand(1, 1, 16, *[8] * (spatial_dims - 1)))
    export_weights(tmp_path / "model.pt", tmp_path / "again.pth", "nnunet")
    assert_equal(loaded(tmp_path / "again.pth")["network_weights"], source.state_dict())


@needs_nnunet
@both
def test_printed_network_and_plan_build_the_network(tmp_path, build):
    dynamic_network_architectures = pytest.importorskip("dynamic_network_architectures")
    source = shaken(build(3, in_channels=2, out_channels=3))
    file = saved(source.state_dict(), tmp_path / "model.pt")
    export_weights(file, tmp_path / "nnunet.pth", "nnunet", [64, 48, 32])
    content = loaded(tmp_path / "nnunet.pth")
    plan = content["nnssl_adaptation_plan"]
    architecture = plan["architecture_plans"]
    assert architecture["arch_class_name"] == f"{PACKAGE}.{type(source).__name__}"
    assert plan["recommended_downstream_patchsize"] == [32, 48, 64]
    normal = source.encoder
    assert architecture["arch_kwargs"]["kernel_sizes"] == [kernel[::-1] for kernel in normal.kernel_sizes]
    assert architecture["arch_kwargs"]["strides"] == [stride[::-1] for stride in normal.strides]
    assert plan["pretrain_num_input_channels"] == 2
    target = turned(build, 3)  # one input channel
    for key, part in (("key_to_encoder", target.key_to_encoder), ("key_to_stem", target.key_to_stem)):
        assert plan[key] == part
    assert {*plan["keys_to_in_proj"]} == {*target.keys_to_in_proj}
    line = import_weights(tmp_path / "nnunet.pth", tmp_path / "again.pt")[3]
    names = {"dynamic_network_architectures": dynamic_network_architectures, "torch": torch}
    network = eval(line.partition(": fits ")[2], names)
    load_pretrained(network, tmp_path / "again.pt", minimum_coverage=1)
    assert_equal(network.state_dict(), source.state_dict())


@needs_nnunet
@pytest.mark.parametrize("name", ["encoder", "online_encoder"])
def test_encoder_of_nnssl(tmp_path, name):
    """Contrastive methods of nnssl hold the encoder and heads, BYOL calls it online_encoder."""
    source, target = shaken(turned(nnunet, 3)), nnunet(3).eval()
    state = {f"module.{name}.{key}": tensor for key, tensor in source.encoder.state_dict().items()}
    state |= {"module.projector.0.weight": torch.ones(2, 2), "module.target_encoder.stem.x": torch.ones(2)}
    file = saved({"network_weights": state, "nnssl_adaptation_plan": {"key_to_lpe": None}}, tmp_path / "nnssl.pth")
    lines = import_weights(file, tmp_path / "model.pt")
    assert lines[2] == "dropped: projector (1), target_encoder (1), nnssl_adaptation_plan"
    assert "num_classes=?, n_conv_per_stage_decoder=['?', '?']" in lines[3]
    load_pretrained(target, tmp_path / "model.pt", minimum_coverage=1)
    x = torch.rand(1, 1, 16, 8, 8)
    with torch.no_grad():
        for ours, theirs in zip(encode(target, x), source.encoder(opposite(x)), strict=True):
            torch.testing.assert_close(ours, opposite(theirs), atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match=r"nnunet takes a whole network, .* but this has no decoder"):
        export_weights(tmp_path / "model.pt", tmp_path / "nnunet.pth", "nnunet")


@needs_nnunet
def test_two_values_of_one_tensor_are_refused(tmp_path):
    state = nnunet(2).state_dict()
    state["decoder.encoder.stem.convs.0.conv.weight"] = state["encoder.stem.convs.0.conv.weight"] + 1
    file = saved({"network_weights": state}, tmp_path / "mixed.pth")
    with pytest.raises(InputError, match=r"mixed\.pth: decoder\.encoder\.stem\.\S+ and encoder\.stem\.\S+ are one ten"):
        import_weights(file, tmp_path / "model.pt")


@needs_nnunet
@pytest.mark.parametrize("patch_size", [[64, 64], [64, 64, 0], [64, 64, 32.5]])
def test_patch_size_of_another_kind_is_refused(tmp_path, patch_size):
    file = saved(nnunet(3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match="patch_size must be 3 positive whole numbers, got"):
        export_weights(file, tmp_path / "nnunet.pth", "nnunet", patch_size)


@pytest.mark.parametrize("build", [basic_unet, dyn_unet, flexible_unet])
def test_networks_of_monai_cannot_be_expressed(tmp_path, build):
    file = saved(build(2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: holds no PlainConvUNet .* that nnU-Net's plans cannot express"):
        export_weights(file, tmp_path / "nnunet.pth", "nnunet")
    assert not (tmp_path / "nnunet.pth").exists()


@needs_nnunet
@both
@pytest.mark.parametrize(
    "reader", ["simpleitk_reader_writer.SimpleITKIO", "nibabel_reader_writer.NibabelIOWithReorient"]
)
def test_nnunet_itself_reads_the_same_features(tmp_path, build, reader):
    """With the real nnU-Net: its loading, which leaves the output layers, and its arrays of one volume."""
    run = pytest.importorskip("nnunetv2.run.load_pretrained_weights")
    module, _, name = reader.partition(".")
    read = getattr(pytest.importorskip(f"nnunetv2.imageio.{module}"), name)().read_images
    source, target = shaken(build(3)), turned(build, 3)
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    export_weights(saved(source.state_dict(), tmp_path / "model.pt"), tmp_path / "nnunet.pth", "nnunet")
    run.load_pretrained_weights(target, tmp_path / "nnunet.pth")
    same = {key for key, tensor in target.state_dict().items() if torch.equal(tensor, before[key])}
    assert same == {key for key in before if ".seg_layers." in key}
    stored = np.random.default_rng(0).normal(size=(16, 8, 12)).astype(np.float32)
    for axes in [(1, 1, 1)] + [(-1, -1, 1)] * ("Reorient" in reader):  # RAS, and LPS where the reader reorients
        nib.save(nib.Nifti1Image(stored, np.diag([*axes, 1.0])), tmp_path / "scan.nii.gz")
        ours = Compose([LoadImage(ensure_channel_first=True), Orientation("RAS")])(tmp_path / "scan.nii.gz")
        theirs = torch.from_numpy(read([str(tmp_path / "scan.nii.gz")])[0])
        with torch.no_grad():
            maps = zip(encode(source, ours.as_tensor()[None]), target.encoder(theirs[None].float()), strict=True)
            for first, second in maps:
                torch.testing.assert_close(first, opposite(second), atol=1e-4, rtol=1e-4)
