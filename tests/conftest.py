"""Who runs the tests: the process that hands them to workers starts without torch and MONAI, which takes seconds."""

import os

import pytest


def pytest_configure(config):
    """Load the fixtures where tests run."""
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        config.pluginmanager.import_plugin("shared_fixtures")


@pytest.hookimpl(optionalhook=True)  # the environments of MONAI Label and MONAI Deploy have no pytest-xdist
def pytest_xdist_auto_num_workers():
    """One more than there are processors: some tests wait for other processes."""
    return (os.cpu_count() or 1) + 1
