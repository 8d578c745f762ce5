import pytest
from scan_files import write_flawed, write_pictures


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "scans")


@pytest.fixture
def flawed(tmp_path):
    return write_flawed(tmp_path / "scans")


@pytest.fixture
def count_calls(monkeypatch):
    """A function that makes a list grow with every call of a function of a module."""

    def count(module, name):
        calls, original = [], getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
        return calls

    return count


@pytest.fixture
def distribute(monkeypatch):
    """A function that makes this process one of several, by its rank and what it does with what is broadcast."""

    def pretend(rank, broadcast):
        faked = {"is_initialized": lambda: True, "get_rank": lambda: rank, "broadcast_object_list": broadcast}
        for name, value in faked.items():
            monkeypatch.setattr(f"torch.distributed.{name}", value)

    return pretend
