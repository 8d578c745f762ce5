#!/usr/bin/env bash
# Cancelling a job of submitit on the machine itself does not end it where the job has setup commands.
#
# Versions: submitit 1.5.4, Python 3.11, Linux.
# With setup commands LocalExecutor starts the job below a shell, and cancel() interrupts the shell alone, which waits
# for the job to end by itself. The job works on, and cancel() says nothing. Without setup commands the same call ends
# the job. (An interrupt at a terminal reaches both, since it goes to all processes of the group.)
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet submitit==1.5.4
cd "$T"
cat >jobs.py <<'PY'
import signal
import sys
import time
from pathlib import Path

import submitit


def work(file):
    for number in range(100):
        Path(file).write_text(str(number))
        time.sleep(0.1)


def works_on(name, **options):
    """Whether a job still writes two seconds after it was cancelled."""
    executor = submitit.LocalExecutor(folder=name)
    executor.update_parameters(timeout_min=2, **options)
    job, file = executor.submit(work, f"{name}.txt"), Path(f"{name}.txt")
    while not file.exists():
        time.sleep(0.1)
    job.cancel()
    time.sleep(3)
    before = file.read_text()
    time.sleep(1)
    return file.read_text() != before


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background lets its commands ignore it
    found = [works_on("plain"), works_on("setup", setup=["export KEY=value"])]
    for name, after in zip(("without setup", "with setup"), found, strict=True):
        print(f"{name}: works on after cancel(): {after}")
    time.sleep(8)  # the job that works on ends meanwhile
    sys.exit(found != [False, True])
PY
"$T/env/bin/python" jobs.py
echo "as described"
