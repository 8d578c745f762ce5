"""Batch norm whose statistics are those of all processes, on CPU and GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from ..utils.distributed import world_size
from ..utils.host_sums import sum_over_processes


class _NormalizeOverProcesses(torch.autograd.Function):
    """Features normalized by the mean and the variance of all processes' samples, on the CPU.

    One exchange of two numbers a channel forward and one backward; all passes over the features are torch's own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        precise = torch.promote_types(x.dtype, torch.float32)
        unused = x.new_zeros(x.shape[1], dtype=precise)  # but for their type, which the statistics get
        own_mean, own_variance = torch.batch_norm_update_stats(x, unused, unused, 0.0)
        moments = torch.stack([own_mean.double(), own_variance.double() + own_mean.double().square()])
        sum_over_processes(moments)
        mean, square = moments / world_size()
        variance = (square - mean.square()).clamp(min=0).to(precise)
        mean = mean.to(precise)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        if gradient.stride() != x.stride():  # the next pass is fast where both lie alike
            gradient = torch.empty_like(x, dtype=gradient.dtype).copy_(gradient)
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, scale, True, 0.0, [False, True, True]
        )
        sums = torch.stack([of_weight, of_bias])
        sum_over_processes(sums)
        to_weight, to_bias = sums / (x.numel() // x.shape[1] * world_size())
        steep = weight * scale
        slope = -steep * scale * to_weight
        view = (1, -1, *[1] * (x.ndim - 2))
        through = torch.addcmul((-steep * to_bias - slope * mean).reshape(view), gradient, steep.reshape(view))
        return through.addcmul_(x, slope.reshape(view)), of_weight, of_bias, None


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of all processes' samples, on the CPU.

    ``torch.nn.SyncBatchNorm`` refuses the CPU; this one serves there and gives the same numbers.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any rank is fine."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalized features, same shape; moves the running statistics in training mode only."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        weight, bias = self.weight, self.bias
        if weight is None or bias is None:
            dtype = torch.promote_types(input.dtype, torch.float32)
            weight, bias = torch.ones(input.shape[1], dtype=dtype), torch.zeros(input.shape[1], dtype=dtype)
        normalized, mean, variance = _NormalizeOverProcesses.apply(input, weight, bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            count = input.numel() // input.shape[1] * world_size()
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * count / (count - 1), share)
        return normalized


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, with batch-norm statistics over all processes; names and values of weights stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network).to(device)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SynchronizedBatchNorm
    return network.to(device)
