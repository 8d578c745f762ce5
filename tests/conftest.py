"""Settings and fixtures of all tests."""

import sys

import pytest
import torch

from dira_monai.__main__ import main

torch.set_num_threads(1)  # the tensors are tiny: threads would only wait for each other


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command line in the test's folder; exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["dira_monai", *words])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run
