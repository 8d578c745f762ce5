"""Settings and fixtures of all tests."""

import sys

import finetune_bundle
import pretrain_bundle
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


@pytest.fixture(scope="session")
def pretrain_scans(tmp_path_factory):
    """Folders of unlabeled images by their number of axes."""
    return {d: pretrain_bundle.write_scans(tmp_path_factory.mktemp(f"scans{d}"), d) for d in (2, 3)}


@pytest.fixture(scope="session")
def finetune_scans(tmp_path_factory):
    """Folders of labeled images by their number of axes."""
    return {d: finetune_bundle.write_data(tmp_path_factory.mktemp(f"labeled{d}"), d) for d in (2, 3)}
