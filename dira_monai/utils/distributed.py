"""What many processes must agree on: gradients, keys, weights; one process alone exchanges nothing."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import InputError
from .host_sums import average_over_processes, sum_over_processes
from .watch import meet_processes

Given = TypeVar("Given")
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
    """Replace each gradient by its mean over the processes; small ones are sent together."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    large = [_in_memory(g) for g in gradients if g.numel() >= LARGE]
    small = [g for g in gradients if g.numel() < LARGE]
    dtypes = dict.fromkeys(g.dtype for g in small)  # a set has another order in every process
    groups = [[g for g in small if g.dtype == dtype] for dtype in dtypes]
    flat = [torch.cat([g.flatten() for g in group]) for group in groups]
    average_over_processes([*large, *flat])
    for group, mean in zip(groups, flat, strict=True):
        for gradient, part in zip(group, mean.split([g.numel() for g in group]), strict=True):
            gradient.copy_(part.view_as(gradient))


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
    average_over_processes([values])
    return output | dict(zip(names, values, strict=True))


@torch.no_grad()
def broadcast(*modules: nn.Module | None) -> None:
    """Give all processes the parameters and buffers of process 0."""
    if world_size() == 1:
        return
    meet_processes()  # each has filled its cache meanwhile
    for module in modules:
        for tensor in module.state_dict().values() if module is not None else ():
            dist.broadcast(tensor, src=0)


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes, whose gradient is the sum over processes too."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        sum_over_processes(total)
        return total

    backward = forward  # the gradient of a sum is the sum of the gradients of all processes


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


def on_first_process(work: Callable[[], Given]) -> Given:
    """What ``work`` gives in process 0, in every process; the others wait for it.

    Raises:
        InputError: in every process, where ``work`` raises it.
        RuntimeError: in every process, with the type and the words of anything else that it raises.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return work()
    answer: list[Any] = [None]
    failure = None
    if dist.get_rank() == 0:
        try:
            answer[0] = work()
        except Exception as error:  # the others must not wait for ever
            answer[0] = error if isinstance(error, InputError) else RuntimeError(f"{type(error).__name__}: {error}")
            failure = None if answer[0] is error else error
    meet_processes()
    dist.broadcast_object_list(answer)
    if isinstance(answer[0], Exception):
        raise answer[0] from failure
    return answer[0]
