"""A process in a session of its own that waits for the end of a run's owner, then removes what the run has left.

`RunScope` starts it (`python -I -S reaper.py OWNER_PID RUN_ID`) with the signals masked that end everything else, and
with a pipe from the owner as its standard input: a line with its task, then, where the owner has cleaned up itself, one
more byte. Until there is work it imports nothing that costs time.
"""

import os
import select
import sys

SWEEPS_S = (0.0, 0.3, 1.0, 2.0)
"""Seconds after the owner's end: the processes of the run need a moment to end, and may write until then."""
ENGINE_SWEEPS_S = (*SWEEPS_S, 3.0, 4.5, 6.0, 8.0)
"""The engine may still be making a container that the owner asked for."""
LIFE_S = 60
ENGINE_TIMEOUT_S = 10


def wait_for_end(owner: int) -> bytes:
    """The task, once the owner is gone; nothing where it has said goodbye."""
    # a forked child of the owner may hold the pipe open, so that the owner is watched too
    watched = watch(owner)
    poller = select.poll()
    for fd in (0, watched):
        if fd is not None:
            poller.register(fd, select.POLLIN)
    heard, open_ended = b"", True
    while open_ended:
        ready = [fd for fd, _ in poller.poll(None if watched is not None else 500)]
        if 0 in ready:
            data = os.read(0, 65536)
            heard += data
            open_ended = bool(data)
        elif watched in ready or os.getppid() != owner:
            open_ended = False
        if heard.partition(b"\n")[2]:
            return b""
    return heard if heard.endswith(b"\n") else b""


def watch(pid: int) -> int | None:
    try:
        watched = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
    if os.getppid() == pid:
        return watched
    os.close(watched)  # the owner was gone before, and this may be another process with its number
    return None


def clean_up(task: bytes) -> None:
    """Remove the run's directory, containers and volumes, and look again until nothing more can come."""
    import json
    import signal
    import time

    signal.alarm(LIFE_S)
    run = json.loads(task)
    sys.path[:] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *run["path"]]
    begun = time.monotonic()
    for after_s in ENGINE_SWEEPS_S if run["engine"] else SWEEPS_S:
        time.sleep(max(0.0, begun + after_s - time.monotonic()))
        remove_directory(run["directory"])
        if run["engine"]:
            remove_from_engine(run["run"])


def remove_directory(path: str) -> None:
    from contextlib import suppress
    from pathlib import Path

    from sandboxes.run_directory import remove_tree

    with suppress(OSError):  # a process of the run still writes there: the next sweep
        remove_tree(Path(path))


def remove_from_engine(run: str) -> None:
    from contextlib import suppress

    from sandboxes import leftovers
    from sandboxes.base import SandboxError

    with suppress(SandboxError), leftovers.engine(ENGINE_TIMEOUT_S) as client:  # away: the next sweep
        leftovers.sweep(client, run)


if __name__ == "__main__":
    if found := wait_for_end(int(sys.argv[1])):
        clean_up(found)
    os._exit(0)  # the interpreter's own end would cost more than all that was done
