#!/usr/bin/env bash
# A job of submitit on the machine itself sees no GPU, unless GPUs are asked for; and all jobs start at once.
#
# Versions: submitit 1.5.4, Python 3.11, Linux.
# LocalExecutor sets CUDA_VISIBLE_DEVICES to "" in its jobs, whatever it was outside, so that a training falls back to
# the CPU without a word. gpus_per_node=N gives every job the same first N devices; visible_gpus names others. There is
# no queue: any number of jobs is started at once, each on those same devices.
# Exit status 0: the behaviour is as described; 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/env"
"$T/env/bin/python" -m pip install --quiet submitit==1.5.4
cd "$T"
cat >jobs.py <<'PY'
import os
import sys
import time

import submitit


def see(_):
    began = time.time()
    time.sleep(3)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), began, time.time()


def jobs(folder, **options):
    executor = submitit.LocalExecutor(folder=folder)
    executor.update_parameters(timeout_min=2, **options)
    results = [job.result() for job in executor.map_array(see, range(4))]
    return [seen for seen, _, _ in results], max(began for _, began, _ in results) < min(end for _, _, end in results)


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
    found = [jobs("plain"), jobs("asked", gpus_per_node=1), jobs("named", gpus_per_node=1, visible_gpus=(1,))]
    for name, (seen, together) in zip(("plain", "gpus_per_node=1", "visible_gpus=(1,)"), found, strict=True):
        print(f"{name}: CUDA_VISIBLE_DEVICES of four jobs {seen}, all run at once: {together}")
    sys.exit(found != [([""] * 4, True), (["0"] * 4, True), (["1"] * 4, True)])
PY
"$T/env/bin/python" jobs.py
echo "as described"
