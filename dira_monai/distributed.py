"""What many processes must agree on: gradients, keys, weights, batch-norm statistics; one alone does nothing."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

LARGE = 2**16  # numbers of a gradient, from which it is exchanged by itself


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@torch.no_grad()
def gather(rows: Tensor) -> Tensor:
    """Rows of all processes without gradient, in the order that one process with the whole batch would have.

    Process r holds samples r, r + world, r + 2 * world, ... of the batch (see ``SeededSampler``); all hold equally
    many.
    """
    if world_size() == 1:
        return rows
    rows = rows.contiguous()  # the parts take over its strides
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows)
    return torch.stack(parts, dim=1).flatten(0, 1)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes: large ones where they lie, small ones together."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    large = [_in_memory(g) for g in gradients if g.numel() >= LARGE]
    waiting = [dist.all_reduce(g, async_op=True) for g in large]
    small = [g for g in gradients if g.numel() < LARGE]
    for dtype in dict.fromkeys(g.dtype for g in small):  # a set has another order in every process
        group = [g for g in small if g.dtype == dtype]
        flat = torch.cat([g.flatten() for g in group])
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, mean in zip(group, flat.split([g.numel() for g in group]), strict=True):
            gradient.copy_(mean.view_as(gradient))
    for exchange, gradient in zip(waiting, large, strict=True):
        exchange.wait()
        gradient /= world_size()


def _in_memory(tensor: Tensor) -> Tensor:
    """A tensor without gaps as one line of numbers in the order of its memory, whatever its layout."""
    return tensor.as_strided((tensor.numel(),), (1,))


@torch.no_grad()
def average_scalars(output: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same entries, of which those without axes are replaced by their mean over the processes."""
    names = [name for name, value in output.items() if value.ndim == 0]
    if world_size() == 1 or not names:
        return output
    values = torch.stack([output[name].float() for name in names])
    dist.all_reduce(values)
    return output | dict(zip(names, values / world_size(), strict=True))


@torch.no_grad()
def broadcast(*modules: nn.Module | None) -> None:
    """Give all processes the parameters and buffers of process 0."""
    if world_size() == 1:
        return
    for module in modules:
        for tensor in module.state_dict().values() if module is not None else ():
            dist.broadcast(tensor, src=0)


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes, whose gradient is the sum over processes too."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Rows of all processes in the order of ``gather``, whose gradient is the sum over the processes.

    Every process computes the loss L of the whole batch from them and gets world * dL/drows for its own rows, so that
    the mean of the parameters' gradients over the processes is the gradient of one process with the whole batch.
    """
    if world_size() == 1:
        return rows
    everyone = rows.new_zeros(world_size() * len(rows), *rows.shape[1:])
    everyone[rank() :: world_size()] = rows
    return _SumOverProcesses.apply(everyone)  # zeros elsewhere: the sum is the batch


class _NormalizeOverProcesses(torch.autograd.Function):
    """Features normalized by the mean and the variance of all processes' samples, on the CPU.

    One exchange of two numbers a channel forward and one backward; all passes over the features are torch's own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        own_mean, own_variance = torch.batch_norm_update_stats(x.float(), None, None, 0.0)
        moments = torch.stack([own_mean.double(), own_variance.double() + own_mean.double().square()])
        dist.all_reduce(moments)
        mean, square = moments / world_size()
        variance = (square - mean.square()).clamp(min=0).float()
        mean = mean.float()
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
        dist.all_reduce(sums)
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
            weight, bias = torch.ones(input.shape[1]), torch.zeros(input.shape[1])
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
