"""Weight files that tests write and read."""

import torch


def saved(content, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def loaded(path):
    return torch.load(path, weights_only=True)


def assert_equal(ours, theirs):
    """State dicts of equal keys and bits."""
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert torch.equal(ours[key], tensor), key
