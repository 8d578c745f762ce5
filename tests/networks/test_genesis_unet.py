import torch
from reference import layout

from dira_monai.networks.genesis_unet import GenesisUNet

LAYOUT = layout("models_genesis_unet3d_keys.json")


def test_layout_is_the_published_one():
    ours = [(key, tuple(tensor.shape)) for key, tensor in GenesisUNet().state_dict().items()]
    assert ours == LAYOUT


def test_eval_mode_uses_running_statistics():
    network = GenesisUNet(2, features=(2, 4, 6, 8)).eval()
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(network(x)[:1], network(x[:1]))  # a sample does not depend on its neighbors


def test_network_scripts_and_gives_the_size_of_the_input(spatial_dims):
    network = GenesisUNet(spatial_dims, in_channels=2, out_channels=3, features=(2, 4, 6, 8)).eval()
    sizes = (16, 8, 24)[:spatial_dims]
    x = torch.rand(1, 2, *sizes)
    assert network(x).shape == (1, 3, *sizes)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))
