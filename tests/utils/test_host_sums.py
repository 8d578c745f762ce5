"""Sums over the processes of one host: those of gloo, to the bit, and sentences where a process is gone or silent."""

import time

import pytest
import torch
import torch.distributed as dist
from processes import in_processes

from dira_monai.utils import host_sums, watch
from dira_monai.utils.host_sums import (
    PIECE,
    average_over_processes,
    connect_host,
    disconnect_host,
    sum_over_processes,
)

KINDS = {"double": torch.float64, "single": torch.float32, "bf16": torch.bfloat16}
SIZES = {"few": (2, 5), "many": (3, PIECE // 5)}  # by sockets, and in shared memory in pieces


def refuse(*_, **__):
    raise AssertionError("gloo takes no part")


def sums():
    """By type and size what both ways give of numbers, sums and means."""
    torch.manual_seed(dist.get_rank())
    found = {}
    exchange = dist.all_reduce
    for name, kind in KINDS.items():
        for size, shape in SIZES.items():
            values = torch.randn(shape).to(kind)
            expected = values.clone()
            exchange(expected)
            dist.all_reduce = refuse
            for _ in range(100 if size == "few" else 10):  # one process may be a message ahead
                got, mean = values.clone(), values.clone()
                sum_over_processes(got)
                average_over_processes([mean])
            dist.all_reduce = exchange
            found[f"{name}, {size}"] = {"expected": expected, "got": got, "mean": mean}
    return found


def sums_of_three():
    """What three processes have, and what they get: few numbers, many, and a share that is not a third."""
    torch.manual_seed(dist.get_rank())
    values = {name: torch.randn(shape) for name, shape in {**SIZES, "none": (0,), "one": (1,)}.items()}
    return {name: {"had": own.clone(), "got": sum_up(own)} for name, own in values.items()}


def sum_up(values):
    sum_over_processes(values)
    return values


def silence():
    """What a process is told that waits for one which is silent; and then, though that one would answer now."""
    if dist.get_rank() == 1:
        time.sleep(3)
        with pytest.raises(RuntimeError) as caught:
            sum_over_processes(torch.ones(1))
        return str(caught.value)
    host_sums._host[0].seconds = 0.5
    said = []
    for pause in (0, 4):
        time.sleep(pause)
        with pytest.raises(RuntimeError) as caught:
            sum_over_processes(torch.zeros(1))
        said.append(str(caught.value))
        assert watch._is_broken_exchange(caught.value)
    return said


def end_of_one():
    """What a process is told that sums where the other one has ended."""
    if dist.get_rank() == 1:
        return None
    time.sleep(2)
    with pytest.raises(RuntimeError) as caught:
        sum_over_processes(torch.zeros(1))
    return str(caught.value)


def one_that_cannot():
    """A sum where one of the processes may open no memory: both take gloo."""
    disconnect_host()
    if dist.get_rank() == 1:
        host_sums.os.memfd_create = no_memory
    connect_host(2, seconds=60)
    return [sum_up(torch.ones(1)), torch.tensor(len(host_sums._host))]


def no_memory(_):
    raise PermissionError


def wait_for_a_year():
    disconnect_host()
    connect_host(2, seconds=365 * 24 * 3600)
    return sum_up(torch.ones(1))


def differences():
    """What each process is told where they sum unequally many numbers."""
    with pytest.raises(RuntimeError) as caught:
        sum_over_processes(torch.zeros(3 + dist.get_rank()))
    return str(caught.value)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return in_processes(tmp_path_factory.mktemp("sums"), sums)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", KINDS)
def test_sums_are_those_of_gloo(both, name, size):
    for process in both:
        found = process[f"{name}, {size}"]
        assert torch.equal(found["got"], found["expected"])
        assert torch.equal(found["mean"], found["expected"] / 2)
        assert found["got"].dtype == KINDS[name]


def test_three_processes_get_the_same_sums(tmp_path):
    all_three = in_processes(tmp_path, sums_of_three, world=3)
    for name in all_three[0]:
        expected = sum(found[name]["had"].double() for found in all_three)
        for found in all_three:
            torch.testing.assert_close(found[name]["got"].double(), expected, rtol=1e-6, atol=1e-6)
            assert torch.equal(found[name]["got"], all_three[0][name]["got"])


def test_processes_that_sum_unequally_many_numbers_are_told(tmp_path):
    first, second = in_processes(tmp_path, differences)
    assert first == "process 0 sums 3 numbers of torch.float32 where process 1 sums 4 numbers of torch.float32"
    assert second.startswith("process 1 sums 4 numbers")


def test_a_process_that_is_silent_is_an_error_and_no_later_sum_takes_its_message(tmp_path):
    first, second = in_processes(tmp_path, silence)
    assert first == ["Timed out waiting for process 1.", "A connection of process 0 was closed by peer."]
    assert second == "A connection of process 1 was closed by peer."


def test_a_process_that_has_ended_is_an_error(tmp_path):
    first, _ = in_processes(tmp_path, end_of_one)
    assert first == "A connection of process 0 was closed by peer."


def test_all_take_gloo_where_one_cannot_share(tmp_path):
    for total, connected in in_processes(tmp_path, one_that_cannot):
        assert (total.tolist(), connected.item()) == ([2.0], 0)


def test_the_time_that_a_process_waits_may_be_longer_than_sockets_count(tmp_path):
    for found in in_processes(tmp_path, wait_for_a_year):
        assert found.tolist() == [2.0]


def test_processes_of_several_hosts_open_no_sockets(monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    connect_host(2, seconds=1)
    assert not host_sums._host
