"""Command lines in processes of their own that wait for no import: forks of a server that has torch and MONAI loaded.

Where Python has no such server (Windows), every process imports them anew. A new interpreter is ``running.execute``.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT = multiprocessing.get_context(METHOD)
CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "monai.bundle"])  # not dira_monai: bundles bring theirs
SILENT = (os.devnull, os.devnull)


def start(words, cwd="/", outputs=SILENT, bare=False, **environment):
    """A process that does what ``python WORDS`` does.

    Args:
        words: a script, or -m or -c and what it takes; then the arguments.
        cwd: where it begins.
        outputs: files of the output and of the errors.
        bare: without the packages and the checkout of the tests: PYTHONPATH names what it has.
        environment: changes of environment variables.
    """
    process = CONTEXT.Process(target=_become, args=([*map(str, words)], str(cwd), outputs, bare, environment))
    process.start()
    return process


def _become(words, cwd, outputs, bare, environment):
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ |= environment
    _find_modules(cwd if words[0][0] == "-" else str(Path(words[0]).parent), bare)
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(words[1], {"__name__": "__main__"})
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


def _find_modules(first, bare):
    """Set where Python looks for modules, as it does at its start."""
    found = sys.path
    if bare:
        found = [path for path in found if path.startswith(sys.base_prefix) and not path.endswith("-packages")]
        sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in str(finder)]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [first, *filter(None, given), *found]


def group_environments(processes):
    """Variables of the environment of each process, as torchrun sets them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    together |= {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    groups = [together | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(processes)]
    return [{name: str(value) for name, value in group.items()} for group in groups]


def run_python(words, processes=1, timeout=240, **options):
    """What ``python WORDS`` came to, as ``subprocess.run`` has it; of processes that train together, the first to fail.

    Args:
        words: as of ``start``, and so are the options.
        processes: number of them.
        timeout: seconds until they are killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [[f"{folder}/{rank}.{name}" for name in ("out", "err")] for rank in range(processes)]
        groups = group_environments(processes) if processes > 1 else [{}]
        running = [start(words, outputs=to, **options, **group) for to, group in zip(outputs, groups, strict=True)]
        deadline = time.monotonic() + timeout
        while not any(codes := [process.exitcode for process in running]) and None in codes:
            if not wait([p.sentinel for p in running if p.exitcode is None], max(0, deadline - time.monotonic())):
                break
        for process in running:
            process.kill()
        if not any(codes) and None in codes:
            raise subprocess.TimeoutExpired(words, timeout)
        first = next((rank for rank, code in enumerate(codes) if code), 0)
        return subprocess.CompletedProcess(words, codes[first], *(Path(path).read_text() for path in outputs[first]))


def without_the_package(runs):
    """Runs configurations, each a pair of files and options, in a process that cannot import this package."""
    lines = ["import sys", "sys.modules['dira_monai'] = None", "from monai.bundle import run"]
    lines += [f"run(config_file={files!r}, **{options!r})" for files, options in runs]
    return run_python(["-c", "\n".join(lines)])


def failure_of(words):
    """What a user reads when ``python WORDS`` stops: one sentence, without a stack trace."""
    result = run_python(words)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]
