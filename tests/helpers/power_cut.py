"""Power cut, shared by several test files."""

import pytest
from ignite.engine import Events


class PowerCutError(Exception):
    pass


def cut_power(trainer, iteration):
    """Make the run die inside an iteration, after its batch was loaded."""

    def die(_):
        raise PowerCutError

    trainer.add_event_handler(Events.ITERATION_STARTED(once=iteration), die)
    with pytest.raises(PowerCutError):
        trainer.run()
    return trainer
