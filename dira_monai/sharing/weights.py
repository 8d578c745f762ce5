"""Whether a file of ``torch.save`` holds only tensors, read without torch."""

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

from ..utils.errors import InputError
from .archive import DAMAGE, MAX_PART, opened_zip

PLAIN = re.compile(  # what stands beside tensors in a checkpoint: kinds of numbers, shapes, devices, numbers of numpy
    r"torch\.(\w+Storage|storage\.(Typed|Untyped)Storage|b?float\d\w*|u?int\d+|bool|complex\d+|Size|device|Tensor)"
    r"|torch\.(_utils\._rebuild_parameter|nn\.parameter\.Parameter|serialization\._get_layout)"
    r"|numpy\.(dtype|_?core\.multiarray\.scalar|dtypes\.\w+DType)|_codecs\.encode|collections\.Counter"
)


class _StandIn:
    """In the place of whatever a pickle names or makes: called, or given a state, it does nothing."""

    def __call__(self, *words: Any, **options: Any) -> "_StandIn":
        return self

    def __setstate__(self, state: Any) -> None:
        pass


def _refuse_opcode(reader: pickle.Unpickler) -> None:
    raise ValueError("pickled with a protocol above 2; torch.save writes 2 by default")


def _refuse_number(reader: pickle.Unpickler) -> None:
    raise ValueError("it holds a number of more than 255 bytes")


def _check_keys(keys: Sequence[Any]) -> None:
    """Refuse keys of a dictionary that can be chosen so that each collides with all others."""
    if any(not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 2**32) for key in keys):
        raise ValueError("a dictionary has other keys than texts and whole numbers")


def _set_item(reader: Any) -> None:
    _check_keys(reader.stack[-2:-1])
    pickle._Unpickler.dispatch[pickle.SETITEM[0]](reader)


def _set_items(reader: Any) -> None:
    _check_keys(reader.stack[::2])
    pickle._Unpickler.dispatch[pickle.SETITEMS[0]](reader)


class _TensorReader(pickle._Unpickler):  # that in C makes a table as long as a number in the file says
    """Reads a pickle of ``torch.save`` with stand-ins for all that it names, so that nothing in it can run.

    Args:
        file: the pickle, of which at most ``MAX_PART`` bytes are read.
        name: what errors call it.
        sizes: bytes of each storage by its key; None: they lie behind the pickles.
        room: bytes of the file.
    """

    dispatch: ClassVar[dict[int, Any]] = {  # what torch.save writes; later protocols have more to check
        ord(op.code): pickle._Unpickler.dispatch[ord(op.code)] if op.proto <= 2 else _refuse_opcode
        for op in pickletools.opcodes
    } | {
        pickle.LONG4[0]: _refuse_number,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
    }

    def __init__(self, file: IO[bytes], name: str, sizes: Mapping[str, int] | None = None, room: int = 0) -> None:
        super().__init__(file)
        self.name, self.sizes, self.room = name, sizes, room
        self.lengths: dict[Any, int] = {}  # of the storages

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return self._make_dictionary
        if full in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return self._check_tensor
        if full == "torch._utils._rebuild_meta_tensor_no_storage":
            self._refuse_meta()
        if not PLAIN.fullmatch(full):
            raise InputError(
                f"{self.name} holds a Python object ({full}) besides tensors, which can run code when it is loaded"
            )
        return _StandIn()

    def persistent_load(self, pid: Any) -> int:
        """The length of a storage: of ("storage", kind, key, device, length)."""
        _, _, key, device, length = pid[:5]
        if device == "meta":
            self._refuse_meta()
        self.lengths[key] = int(length)
        long = sum(self.lengths.values()) > self.room if self.sizes is None else self.sizes.get(key, -1) < length
        if long or length < 0:
            raise ValueError(f"storage {key} is shorter than it says")
        return int(length)

    def _refuse_meta(self) -> None:
        raise InputError(f"{self.name} holds a tensor on the meta device, which has no numbers")

    def _make_dictionary(self) -> OrderedDict:
        return OrderedDict()

    def _check_tensor(self, length: int, offset: int, size: Sequence[int], stride: Sequence[int], *rest: Any) -> Any:
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count > length or (count and not 0 <= last < length):
            raise InputError(
                f"{self.name} holds a view, a tensor of {count} numbers in a storage of {length}; save a copy of it"
            )
        return _StandIn()


def check_weight_file(path: Path, name: str) -> None:
    """Refuse a file of ``torch.save``, in its zip format or that of before torch 1.6, that holds more than tensors.

    Beside tensors it may hold what checkpoints do: texts, numbers (also numpy's), lists and dictionaries.

    Args:
        path: the file.
        name: what to call it.

    Raises:
        InputError: if it is damaged or compressed, names any other Python object, or if a tensor is on the meta device
            or shows the numbers of its storage more than once, so that a small file fills the memory.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\3\4":  # as torch tells the formats apart
                _check_zip(path, name)
            else:
                file.seek(0)
                head = io.BytesIO(file.read(MAX_PART))
                for _ in range(5):  # a magic number, the version, the machine, the content, the keys of storages
                    _TensorReader(head, name, room=path.stat().st_size).load()
    except InputError:
        raise
    except (
        *DAMAGE,
        MemoryError,
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{name} cannot be read as a checkpoint ({reason})") from error


def _check_zip(path: Path, name: str) -> None:
    with opened_zip(path) as inner:
        entries = inner.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise InputError(f"{name} is compressed to fill the memory, as torch.save never does")
        if inner.comment or min((entry.header_offset for entry in entries), default=0):
            raise ValueError("its zip file has further content than its entries, as torch.save never writes")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries lie upon each other, as torch.save never writes")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if len(pickles) != 1:
            raise ValueError(f"expected one data.pkl, got {len(pickles)}")
        sizes = {entry.filename.rpartition("/data/")[2]: entry.file_size for entry in entries}
        if pickles[0].file_size > MAX_PART:
            raise ValueError(f"its data.pkl has {pickles[0].file_size} bytes, more than {MAX_PART}")
        with inner.open(pickles[0]) as content:
            _TensorReader(content, name, sizes).load()
