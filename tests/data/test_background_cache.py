"""The cache that threads fill: what is asked for comes at once, nothing is loaded twice, errors come early."""

import os
import pickle
import threading
import time

import pytest

from dira_monai.data.background_cache import BackgroundCache


def test_what_is_asked_for_does_not_wait_for_what_comes_before_it():
    gate, begun, calls = threading.Event(), threading.Event(), []

    def load(index):
        calls.append(index)
        if index == 0:
            begun.set()
            assert gate.wait(10)
        return index**2

    cache = BackgroundCache(load, 6, workers=1)
    assert begun.wait(10)
    assert [cache[index] for index in (5, 3, 5)] == [25, 9, 25]  # the only thread is busy with the first
    assert calls == [0, 5, 3]
    gate.set()
    assert [cache[index] for index in range(len(cache))] == [0, 1, 4, 9, 16, 25]
    assert sorted(calls) == [0, 1, 2, 3, 4, 5]


def test_an_error_is_raised_with_the_next_item_whichever_it_is():
    failed, calls = threading.Event(), []

    def load(index):
        calls.append(index)
        if index == 1:
            failed.set()
            raise ValueError("item 1 is broken")
        return index

    cache = BackgroundCache(load, 50, workers=1)
    assert failed.wait(10)
    while cache.error is None:
        time.sleep(0.001)
    assert calls == [0, 1]  # the rest is left alone
    with pytest.raises(ValueError, match="item 1 is broken"):
        cache[30]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_forked_process_loads_what_was_not_there_yet():
    gate, begun = threading.Event(), threading.Event()

    def load(index):
        if index == 1 and threading.current_thread() is not threading.main_thread():
            begun.set()
            assert gate.wait(10)
        return index + 5

    cache = BackgroundCache(load, 3, workers=1)
    assert begun.wait(10)
    child = os.fork()
    if child == 0:  # the thread that loads item 1 is not in here
        os._exit(sum(cache[index] for index in range(3)))
    gate.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5 + 6 + 7


def test_a_new_process_gets_all_items():
    assert pickle.loads(pickle.dumps(BackgroundCache(str, 30))) == [str(index) for index in range(30)]
