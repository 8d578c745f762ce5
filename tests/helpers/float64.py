"""Training in float64: two orders of the same sums then differ by less than any figure shows."""

from torch import Tensor, nn


def to_float64(module, inputs):
    """What goes into a module, converted: losses and objectives compute in float32 between modules."""
    return tuple(value.double() if isinstance(value, Tensor) else value for value in inputs)


def use_float64(trainer):
    """Turn all networks of a trainer, and so of its validation, to float64; call it before the first step."""
    for network in trainer.to_save().values():
        if isinstance(network, nn.Module):
            network.double()
            for module in network.modules():
                module.register_forward_pre_hook(to_float64)
