"""The loaders of training and validation, against the samplers whose order they take."""

import pytest

from dira_monai.data.loaders import training_loader, validation_loader
from dira_monai.data.sampler import SeededSampler


class Asked:
    """A dataset whose samples are what they are asked with."""

    def __len__(self):
        return 5

    def __getitem__(self, pair):
        return list(pair)


def samples_of(loader):
    return [pair for batch in loader for pair in zip(*map(list, batch), strict=True)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_takes_the_order_of_the_seed(num_workers):
    loader = training_loader(Asked(), 2, epoch_length=4, seed=3, num_workers=num_workers)
    assert loader.persistent_workers == (num_workers > 0)
    epochs = []
    for epoch in (1, 2):
        loader.sampler.set_epoch(epoch)
        expected = SeededSampler(Asked(), 2, epoch_length=4, seed=3)
        expected.set_epoch(epoch)
        epochs.append(samples_of(loader))
        assert epochs[-1] == list(expected)
    assert len(epochs[0]) == 8
    assert epochs[0] != epochs[1]


def test_validation_is_the_same_in_every_epoch_and_has_its_own_seeds():
    loader = validation_loader(Asked(), 2, samples=7, seed=3)
    first = samples_of(loader)
    loader.sampler.set_epoch(2)
    assert first == samples_of(loader) == list(SeededSampler(Asked(), 2, seed=4, shuffle=False, samples=7))
    assert [int(index) for index, _ in first] == [0, 1, 2, 3, 4, 0, 1]
