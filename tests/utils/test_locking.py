import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dira_monai.utils.errors import InputError
from dira_monai.utils.locking import lock_folder, release_folders

HOLD = """
import sys
from dira_monai.utils.locking import lock_folder
lock_folder(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that writes a run into the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_and_a_killed_one_leaves_the_folder_free(tmp_path, other):
    (tmp_path / "run/.model.pt.1.tmp").write_bytes(b"half")
    (tmp_path / "run/panels").mkdir()
    (tmp_path / "run/panels/.epoch_0001.png.1.tmp").write_bytes(b"half")
    (tmp_path / "run/model.pt").write_bytes(b"whole")
    told = (
        rf"{re.escape(str(tmp_path))}/run: another run writes here \(host \S+, process {other.pid}, since \S+\); wait"
    )
    with pytest.raises(InputError, match=told):
        lock_folder(tmp_path / "run")
    other.send_signal(signal.SIGKILL)
    other.wait()
    lock_folder(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").rglob("*[!g]")) == [".running.json", "model.pt", "panels"]
    release_folders()
    assert not list((tmp_path / "run").glob(".*.json"))


def test_the_same_process_may_hold_a_folder_twice(tmp_path):
    lock_folder(tmp_path / "new/run")
    lock_folder(tmp_path / "new/../new/run")
    release_folders()
    assert Path(tmp_path / "new/run").is_dir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"/file/run: cannot be written to \(.*\); name another folder"):
        lock_folder(tmp_path / "file/run")
