"""In which precision networks run: as asked for, or as a short measurement says."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..utils.distributed import on_first_process, rank
from ..utils.errors import InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTOMATIC = ("fp32", "bf16")  # what auto chooses between; neither has a scaler of losses
CONVOLUTIONS = (torch.conv2d, torch.conv3d)
FASTER = 1.3  # times, from which bf16 is worth its fewer digits: a step is not all convolutions


def settle_precision(device: torch.device, precision: str) -> str:
    """fp32, bf16 or fp16 as given; of ``auto`` the one of fp32 and bf16 that this machine is faster in, which it says.

    Raises:
        InputError: if ``precision`` is none of fp32, bf16, fp16, auto.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, auto, got {precision!r}")
        return precision
    return _choose(device.type)


@lru_cache  # trainer and evaluator of a run both ask; it is said once
def _choose(device: str) -> str:
    """The faster one of fp32 and bf16, printed by the first process."""
    gain = on_first_process(lambda: measure_gain(device))
    chosen = "bf16" if gain >= FASTER else "fp32"
    if rank() == 0:
        print(f"precision auto: {chosen}, since convolutions in bf16 are {gain:.1f} times as fast here")
    return chosen


def measure_gain(device: str) -> float:
    """How many times faster a convolution of middle size is in bf16 than in float32; 0.1 s on a CPU."""
    layer = nn.Conv2d(128, 128, 3, padding=1, bias=False).to(device)
    images = torch.ones(4, 128, 32, 32, device=device).to(memory_format=torch.channels_last)
    return _seconds(layer, images) / _seconds(layer.to(torch.bfloat16), images.to(torch.bfloat16))


@torch.no_grad()
def _seconds(work: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, calls: int = 5) -> float:
    """The least that one of some calls takes, after one that prepares; the result is waited for."""
    times = []
    for _ in range(1 + calls):
        started = time.perf_counter()
        work(images)[0, 0, 0, 0].item()
        times.append(time.perf_counter() - started)
    return min(times[1:])


class SmallMapsInFloat32(TorchFunctionMode):
    """Convolutions of maps that are shorter than the kernel along an axis, in float32 on a CPU.

    In bf16 the gradient of such weights holds what happens to be in the memory, up to NaN, where oneDNN has kernels for
    avx512_bf16 (torch 2.13; findings/torch_bf16_gradients_of_small_maps_are_garbage.sh). It costs nothing that counts.
    """

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping | None = None
    ) -> Any:
        given: dict[str, Any] = {**(kwargs or {})}
        if function in CONVOLUTIONS:
            given |= zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, strict=False)
            args, kernel = (), given["weight"].shape[2:]
            if any(n < k for n, k in zip(given["input"].shape[-len(kernel) :], kernel, strict=True)):
                with torch.autocast("cpu", enabled=False):
                    return function(**{name: p.float() if isinstance(p, Tensor) else p for name, p in given.items()})
        return function(*args, **given)


class _Autocast(torch.autocast):
    """torch's automatic mixed precision, on a CPU with ``SmallMapsInFloat32``; entered again and again."""

    def __init__(self, device: torch.device, precision: str) -> None:
        mixed = precision != "fp32"
        super().__init__(device.type, dtype=PRECISIONS[precision], enabled=mixed)
        self.small_maps = SmallMapsInFloat32() if mixed and device.type == "cpu" else nullcontext()

    def __enter__(self) -> "_Autocast":
        super().__enter__()
        self.small_maps.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.small_maps.__exit__(*error)
        super().__exit__(*error)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which networks run: bf16 and fp16 by torch's automatic mixed precision, on CPU and CUDA.

    Args:
        device: of the networks.
        precision: what ``settle_precision`` gives.
    """
    return _Autocast(device, precision)


def make_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Scaler of losses, which does nothing but in fp16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
