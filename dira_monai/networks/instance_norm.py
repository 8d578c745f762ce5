"""Instance norm of maps whose channels lie innermost in memory, on the CPU.

torch computes instance norm as batch norm of all channels of all samples, for which it copies such maps into the usual
layout; the convolution behind copies them back. Here each sample is normalized where it lies.
"""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
SLAB = 8192  # places whose moments are summed in one go


def use_channels_last(*modules: nn.Module, norms: bool = True) -> None:
    """Move weights of convolutions of 2D and 3D into the layout of channels innermost, and normalize maps in it.

    Args:
        modules: to be changed; names and values of their weights stay.
        norms: whether instance norms are exchanged too, for ones that cannot be differentiated twice.
    """
    for part in itertools.chain.from_iterable(module.modules() for module in modules):
        if isinstance(part, _ConvNd) and len(part.kernel_size) in CHANNELS_LAST:
            layout = CHANNELS_LAST[len(part.kernel_size)]
            part.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack it
        if norms and type(part) in (nn.InstanceNorm2d, nn.InstanceNorm3d) and not part.track_running_stats:
            part.__class__ = ChannelsLastInstanceNorm


class ChannelsLastInstanceNorm(_InstanceNorm):
    """Instance norm that keeps the layout of its input; the numbers of torch's up to rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalized features, same shape and layout."""
        layout = CHANNELS_LAST.get(input.ndim - 2)
        if input.device.type != "cpu" or layout is None or not input.is_contiguous(memory_format=layout):
            return F.instance_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return _NormalizeSamples.apply(input, self.weight, self.bias, self.eps)


class _NormalizeSamples(torch.autograd.Function):
    """Each sample as a batch of its own through torch's batch norm, which is fast in any layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        mean, variance = _moments(x)
        out, unused = torch.empty_like(x), mean.new_empty((2, 0))
        for n, sample in enumerate(x.split(1)):  # written where they belong: F.batch_norm would need a copy
            torch.ops.aten.native_batch_norm.out(
                sample,
                weight,
                bias,
                mean[n],
                variance[n],
                False,
                0.0,
                eps,
                out=out[n : n + 1],
                save_mean=unused[0],
                save_invstd=unused[1],
            )
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale = ctx.saved_tensors
        if gradient.stride() != x.stride():  # the next pass is fast where both lie alike
            gradient = torch.empty_like(x).copy_(gradient)
        needed = [True, weight is not None, weight is not None]
        through, of_weight, of_bias = torch.empty_like(x), [], []
        for n, sample in enumerate(x.split(1)):
            through[n : n + 1], w, b = torch.ops.aten.native_batch_norm_backward(
                gradient[n : n + 1], sample, weight, None, None, mean[n], scale[n], True, 0.0, needed
            )
            of_weight.append(w)
            of_bias.append(b)
        if weight is None:
            return through, None, None, None
        return through, torch.stack(of_weight).sum(0), torch.stack(of_bias).sum(0), None


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of each sample, at least float32, (B, C).

    Batch norm adds up one value after the other, which loses digits where there are many or where they are alike: so
    slabs are put together in float64, whose means ``mean`` adds up in a tree.
    """
    precise = torch.promote_types(x.dtype, torch.float32)
    slabs = x.split(max(1, SLAB // x[0, 0, 0].numel()), dim=2)
    found = []
    for part in (part for slab in slabs for part in slab.split(1)):
        mean = part.movedim(1, -1).flatten(0, -2).mean(0, dtype=precise)
        rough, about_rough = torch.batch_norm_update_stats(part, None, None, 0.0)
        found.append(torch.stack([mean, about_rough - (mean - rough).square()]))
    means, variances = torch.stack(found, dim=1).double().unflatten(1, (len(slabs), -1))  # (slabs, B, C)
    share = means.new_tensor([slab.shape[2] / x.shape[2] for slab in slabs])[:, None, None]
    mean = (means * share).sum(0)
    variance = ((variances + (means - mean).square()) * share).sum(0).clamp_(min=0)
    return mean.to(precise), variance.to(precise)
