"""A MONAI Label server on loopback, for as long as a ``with`` block lasts."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

START_SECONDS = 180


class Server:
    """Requests to a running server; an answer that is no success raises with what the server said."""

    def __init__(self, port, log):
        self.address, self.log = f"http://127.0.0.1:{port}", log
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy between a machine and itself

    def ask(self, method, path, **content):
        answer = self.session.request(method, self.address + path, timeout=300, **content)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}\n{self.log.read_text()[-4000:]}"
        return answer

    def train(self, name, **params):
        """Start a training and wait for its end."""
        self.ask("POST", f"/train/{name}", json=params)
        while (task := self.ask("GET", "/train/").json())["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(1)
        assert task["status"] == "DONE", self.log.read_text()[-6000:]


@contextmanager
def serving(bundles, studies):
    """Serve the bundles of an app and the images of a folder; every process of the server ends with the block."""
    app = Path(bundles[0]).parents[1]
    _make(app)
    port, log = _free_port(), app / "server.log"
    names = ",".join(Path(bundle).name for bundle in bundles)
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "monailabel.main",
        "start_server",
        "-i",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    words += ["--app", str(app), "--studies", str(studies)]
    words += ["--conf", "models", names, "--conf", "zoo_source", "ngc", "--conf", "sam2", "false"]
    with log.open("w") as output:
        process = subprocess.Popen(
            words, stdout=output, stderr=subprocess.STDOUT, cwd=app, env=_environment(), start_new_session=True
        )
    try:
        server = Server(port, log)
        _wait(server, process)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with a training that it started
        process.wait()


def _make(app):
    """Put the app for bundles into its folder, which holds the bundles already."""
    with TemporaryDirectory() as folder:
        words = [sys.executable, "-W", "ignore", "-m", "monailabel.main", "apps", "--download"]
        subprocess.run([*words, "--name", "monaibundle", "--output", folder], check=True, capture_output=True)
        shutil.copytree(Path(folder) / "monaibundle", app, dirs_exist_ok=True)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _wait(server, process):
    """Until the server answers; the log, where it does not."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            server.ask("GET", "/info/")
        except requests.ConnectionError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"MONAI Label did not start:\n{server.log.read_text()[-6000:]}")
