"""Real processes: one per rank, and copies of this one that are killed."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

HELPERS = Path(__file__).parent


def run(function, world, folder, *, waits_for=None):
    """Run `function` of ranks.py on every rank; what each returned, None where it was not waited for or died."""
    outputs = [folder / f"{rank}.pt" for rank in range(world)]
    processes = [
        subprocess.Popen(
            [sys.executable, "ranks.py", function, str(rank), str(world), str(folder / "store"), str(outputs[rank])],
            cwd=HELPERS,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        for rank in range(world) if waits_for is None else waits_for:
            _, error = processes[rank].communicate(timeout=100)
            assert processes[rank].returncode == 0, error
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stderr.close()
    return [torch.load(path) if path.exists() else None for path in outputs]


def forked(function):
    """Start a function in a copy of this process, which has all that it imports; return the copy's id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which the copy uses none
        child = os.fork()
    if child:
        return child
    try:
        function()
        os._exit(0)
    except BaseException:
        os._exit(1)


def kills(function, seconds, *, times=20, seed=0.0):
    """Kill a function at moments spread over the time that it takes.

    Args:
        function: of the number of the time; what it does takes about as long each time.
        seconds: how long it may take at most.
        times: kills.
        seed: where the moments begin, from 0 to 1.

    Yields:
        The number of each time, after its kill.
    """
    begin = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(forked(lambda: function(0)), 0)[1]) == 0
    whole = time.monotonic() - begin
    assert whole < seconds
    moments = [whole * ((seed + 0.618 * time_) % 1) for time_ in range(1, times + 1)]
    for number, moment in enumerate(moments):
        child = forked(lambda number=number: function(number))
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        yield number
