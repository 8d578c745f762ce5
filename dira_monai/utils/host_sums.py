"""Sums over the processes of one host: few numbers through sockets, many in memory that all of them see.

gloo hands each sum to a thread of its own and sends it through the network of the host: a few numbers take it a
millisecond. Tensors of other devices, and those of several hosts, go through the backend of torch.
"""

import hmac
import mmap
import os
import secrets
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

SMALL = 2**15  # bytes; a socket holds two such messages unread, so that all may send before they receive
PIECE = 2**21  # bytes of larger tensors that are summed at once, so that they stay in the caches


class HostSums:
    """Connections and memory that processes share which have met by gloo and run on one host.

    Attributes:
        seconds: after which a process that sends nothing is given up.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = min(seconds, 2e6)  # a socket counts milliseconds in 32 bits
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._connections: dict[int, Connection] = {}  # by the number of the other process
        key: list[Any] = [secrets.token_bytes(32)]  # keeps strangers out
        dist.broadcast_object_list(key)
        address = f"\0{secrets.token_hex(16)}"  # in no folder, whose name could be too long
        with Listener(address, backlog=self.world, authkey=key[0]) as listener:
            addresses: list[Any] = [None] * self.world
            dist.all_gather_object(addresses, listener.address)
            for other in range(self.rank):
                self._connections[other] = Client(addresses[other], authkey=key[0])
                self._connections[other].send_bytes(str(self.rank).encode())
            for _ in range(self.rank + 1, self.world):
                caller = listener.accept()
                self._connections[int(caller.recv_bytes())] = caller
        self._memory = self._share_memory()

    def _share_memory(self) -> Tensor:
        """Bytes that all processes see, (world + 1, PIECE): a row for the numbers of each and one for the result."""
        if self.rank == 0:
            handle = os.memfd_create("sums")
            os.truncate(handle, (self.world + 1) * PIECE)
            for connection in self._connections.values():
                send_handle(connection, handle, None)
        else:
            handle = recv_handle(self._connections[0])
        memory = mmap.mmap(handle, (self.world + 1) * PIECE)
        os.close(handle)
        return torch.frombuffer(memory, dtype=torch.uint8).view(self.world + 1, PIECE)

    def reduce(self, values: Tensor, how: Callable[..., Tensor]) -> None:
        """Replace numbers by their sum or mean over all processes, see ``sum_over_processes``."""
        if not values.numel():
            return
        try:
            if values.nbytes <= SMALL:
                self._reduce_few(values.view(-1), how)
            else:
                for piece in values.view(-1).split(PIECE // values.element_size()):
                    self._reduce_piece(piece, how)
        except BaseException as error:
            self.close()  # a message that still comes would be taken for one of the next sum
            if isinstance(error, EOFError | OSError):
                raise RuntimeError(f"A connection of process {self.rank} was closed by peer.") from error
            raise

    def _reduce_few(self, values: Tensor, how: Callable[..., Tensor]) -> None:
        messages = self._exchange(values, values.view(torch.uint8).numpy().tobytes())
        parts = {other: torch.frombuffer(bytearray(got), dtype=values.dtype) for other, got in messages.items()}
        parts[self.rank] = values.clone()
        how(torch.stack([parts[number] for number in sorted(parts)]), 0, out=values)

    def _reduce_piece(self, values: Tensor, how: Callable[..., Tensor]) -> None:
        """Each process reduces its share of the numbers; nobody writes a row that another one may still read."""
        rows = self._memory[:, : values.nbytes].view(values.dtype)
        rows[self.rank] = values
        self._exchange(values)  # all have written
        share = rows.tensor_split(self.world, dim=1)[self.rank]
        how(share[:-1], 0, out=share[-1])
        self._exchange(values)  # all have reduced
        values.copy_(rows[-1])

    def _exchange(self, values: Tensor, own: bytes = b"") -> dict[int, bytes]:
        """Send every other process a message, and what they have sent; all must be about as many numbers of a type."""
        about = f"{values.numel()} numbers of {values.dtype}".encode()
        for connection in self._connections.values():
            connection.send_bytes(about + b"|" + own)
        messages = {}
        for other in self._connections:
            theirs, _, messages[other] = self._receive(other).partition(b"|")
            if theirs != about:
                raise RuntimeError(
                    f"process {self.rank} sums {about.decode()} where process {other} sums {theirs.decode()}"
                )
        return messages

    def _receive(self, other: int) -> bytes:
        if not self._connections[other].poll(self.seconds):
            raise RuntimeError(f"Timed out waiting for process {other}.")
        return self._connections[other].recv_bytes()

    def close(self) -> None:
        """Close the connections; whatever is summed then is an error in all processes."""
        for connection in self._connections.values():
            connection.close()


_host: list[HostSums] = []  # the one of this process, where all run on its host


def connect_host(processes_here: int, seconds: float) -> None:
    """Let the functions below use sockets and memory, if all processes that have met by gloo run on this host.

    Args:
        processes_here: number of processes on this host, LOCAL_WORLD_SIZE of torchrun.
        seconds: after which a process that sends nothing is given up.
    """
    if not 1 < processes_here == dist.get_world_size():
        return
    able: list[Any] = [None] * processes_here
    dist.all_gather_object(able, _can_share())
    if all(able):
        _host.append(HostSums(seconds))


def _can_share() -> bool:
    """Whether this process may open what ``HostSums`` needs; not on macOS, in some containers and in FIPS mode."""
    try:
        os.close(os.memfd_create("sums"))
        Listener(f"\0{secrets.token_hex(16)}").close()
        hmac.new(b"key", b"message", "md5")  # by which connections know each other before Python 3.12
    except (AttributeError, OSError, ValueError):
        return False
    return True


def disconnect_host() -> None:
    """Close what ``connect_host`` has opened."""
    while _host:
        _host.pop().close()


def sum_over_processes(values: Tensor) -> None:
    """Replace numbers by their sums over all processes; the same to the bit in every process.

    Args:
        values: contiguous, any shape.

    Raises:
        RuntimeError: if another process has ended, or sends nothing within the time that an exchange may take.
    """
    if _host and values.device.type == "cpu":
        _host[0].reduce(values, torch.sum)
    else:
        dist.all_reduce(values)


def average_over_processes(tensors: list[Tensor]) -> None:
    """Replace numbers by their means over all processes, see ``sum_over_processes``; in torch's backend all at once."""
    if _host and all(values.device.type == "cpu" for values in tensors):
        for values in tensors:
            _host[0].reduce(values, torch.mean)
        return
    for exchange in [dist.all_reduce(values, async_op=True) for values in tensors]:
        exchange.wait()
    for values in tensors:
        values /= dist.get_world_size()
