"""State dicts out of the files that hold them: plain, in a checkpoint, in a bundle folder or archive."""

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..utils.errors import InputError
from ..utils.files import atomic_write
from .named import find_named, stored_names

NNUNET = "network_weights"  # of nnU-Net and nnssl
WRAPPERS = ("network", "state_dict", "model", NNUNET)


def read_weights(path: str | Path) -> Any:
    """Content of a weight file, of the one models/model.pt in a bundle folder or archive, or of the package's weights.

    It is read by ``load_weights_only``; Python objects that could run code are refused.
    """
    if not str(path).strip():  # else the folder that the command runs in
        raise InputError("the name of the weight file is empty; give a file, or a bundle's folder or archive")
    path = find_named(path) or Path(path)
    if path.is_dir():
        path = path / "models" / "model.pt"
    elif path.name == str(path) and not path.exists():
        known = f"; the package has weights of the names {', '.join(stored_names())}" if stored_names() else ""
        raise InputError(f"{path}: no such checkpoint{known}")
    if path.suffix.lower() == ".zip" and path.is_file():
        return _read_archive(path)
    try:
        return load_weights(path)
    except InputError as error:
        _refuse_objects(error.__cause__, path)
        raise


def unwrap(content: Any, path: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in the content of a file, and the names of whatever else is in there.

    It is one of the entries ``WRAPPERS``, where there is one of these, else the content itself; NaN and infinity are
    refused.
    """
    entries = content if isinstance(content, Mapping) else {}
    wrapper = next((name for name in WRAPPERS if isinstance(entries.get(name), Mapping)), None)
    inner = entries if wrapper is None else entries[wrapper]
    state = {key: tensor for key, tensor in inner.items() if isinstance(key, str) and isinstance(tensor, Tensor)}
    if not state:
        raise InputError(f"{path}: holds no state dict, neither plain nor as one of the entries {', '.join(WRAPPERS)}")
    check_finite(state, path)
    return state, [str(key) for key in dict.fromkeys((*inner, *entries)) if key not in state and key != wrapper]


def is_nnunet(content: Any) -> bool:
    """Whether the content of a file is a checkpoint of nnU-Net or nnssl, whose kernels have axes z, y, x."""
    return isinstance(content, Mapping) and isinstance(content.get(NNUNET), Mapping)


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without what ``DataParallel`` and ``torch.compile`` put before or between the names."""
    state = {re.sub(r"(^|\.)_orig_mod\.", r"\1", key): tensor for key, tensor in state.items()}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return state


def check_finite(state: Mapping[str, Any], path: str | Path) -> None:
    """Nothing, where every number of a state dict is finite.

    Raises:
        InputError: names the file and the first tensor with NaN or infinity.
    """
    if (key := find_not_finite(state)) is not None:
        raise InputError(f"{path}: weights must be finite numbers, but {key} holds NaN or infinity")


def find_not_finite(state: Mapping[str, Any]) -> str | None:
    """The first tensor of a state dict with NaN or infinity, by its name, or None; one pass over all of them."""
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor) and v.is_floating_point() and v.numel()}
    if not tensors or nn.utils.get_total_norm(tensors.values(), float("inf")).isfinite():
        return None
    return next(key for key, tensor in tensors.items() if not tensor.isfinite().all())


def _read_archive(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/models/model\.pt", name)]
            content = archive.read(found[0]) if len(found) == 1 else b""
        if len(found) == 1:
            return load_weights_only(io.BytesIO(content))
    except Exception as error:
        _refuse_objects(error, path)
        raise InputError(f"{path}: cannot be read as a bundle archive ({type(error).__name__})") from error
    raise InputError(f"{path}: a bundle archive must hold one NAME/models/model.pt, got {len(found)}")


def _refuse_objects(error: BaseException | None, path: Path) -> None:
    unsafe = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, UnpicklingError) and unsafe:
        raise InputError(
            f"{path}: holds a Python object ({unsafe[1]}) besides tensors, and such a file is never loaded, since that "
            f"can run code; ask its author for the state dict alone, or save that again where you trust the file"
        ) from error


_SCALAR = np.float64(0).__reduce__()[0]  # rebuilds a number of numpy out of its bytes; can do nothing else

_NUMBERS: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # before numpy 2, since then
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
]


def save_atomic(content: Any, path: str | Path) -> None:
    """Write with ``torch.save``, whole or not at all (see ``atomic_write``)."""
    with atomic_write(path) as file:
        torch.save(content, file)


def load_weights_only(file: str | Path | IO[bytes], device: torch.device | str = "cpu") -> Any:
    """``torch.load`` with ``weights_only=True``, which here takes numbers of numpy too: a best loss often is one."""
    known = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([entry for entry in _NUMBERS if entry not in known]):
        return torch.load(file, map_location=device, weights_only=True)


def load_weights(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Content of a weight or checkpoint file, read by ``load_weights_only``; of safetensors in float32."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        if Path(path).suffix.lower() == ".safetensors":
            return _load_safetensors(path, device)
        _check_sums(path)
        return load_weights_only(path, device)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]  # an empty file gives an error without text
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason})") from error


def _load_safetensors(path: str | Path, device: torch.device | str) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # archives of bundles run without it

    state = load_file(path, device=str(device))
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _check_sums(path: str | Path) -> None:
    """Refuse a file of ``torch.save`` whose content differs from its checksums, at which torch never looks."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"its part {damaged} is damaged: the checksum differs; take another copy of the file")


def load_module(module: nn.Module, state: Mapping[str, Any], path: str | Path, part: str) -> None:
    """Load a state dict that must fit exactly; the error names the file, the part and the first keys that do not."""
    own = module.state_dict()
    fitting = getattr(module, "resized_on_load", ())  # the module itself makes these fit
    wrong = [k for k in own if k not in state] + [k for k in state if k not in own]
    wrong += [k for k in own if k in state and k not in fitting and own[k].shape != state[k].shape]
    if wrong:
        raise InputError(
            f"{path}: {part} is of another network: {len(wrong)} of {len(own)} tensors do not fit, "
            f"first {', '.join(wrong[:3])}"
        )
    module.load_state_dict(state)


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, so that weights made on a GPU load anywhere."""
    return {name: tensor.cpu() for name, tensor in state.items()}
