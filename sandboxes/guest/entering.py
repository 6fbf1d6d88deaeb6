"""Becoming a run: what a forked process gives up before it touches a byte of the tree."""

import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
from typing import Any, Dict, Iterable, List, Set

RLIMIT_MSGQUEUE = 12
MAX_OPEN_FILES = 4096
"""Of one process: the table of open files is the whole machine's."""
START_VARIABLES = ("PYTHON", "LC_", "LANG")
"""An interpreter reads these once, when it starts."""
COLD_START = "import os; exec(compile(os.fdopen(%d).read(), '<guest>', 'exec'), {'__name__': 'guest'})"
COLD_PATH = "import sys\nsys.path[:1] = []\nsys.path += sys.argv[1:]\nsys.argv = ['pytest']\n"
"""What PYTHONPATH names, then the standard library, then what this interpreter was given: as in a fork."""


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(option, value, 0, 0, 0)


def close_all_but(keep: Iterable[int]) -> None:
    """The runner's own descriptors are not the run's."""
    try:
        fds = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        fds = list(range(1024))
    for fd in fds:
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass


def limit_resources(limits: Dict[str, Any], address_space: int) -> None:
    cpu = max(1, int(limits["cpu_s"]))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"], limits["file_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = MAX_OPEN_FILES if allowed == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, allowed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(RLIMIT_MSGQUEUE, (0, 0))  # message queues would stay after the run
    if address_space:
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))


def drop_user(user: int) -> None:
    """To an unprivileged user for good: no capability is left, and none can be had from a program's mode."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    prctl(38, 1)  # PR_SET_NO_NEW_PRIVS


def prefer_as_victim() -> None:
    """Where memory runs out, the run is to be killed and not its runner."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def take_environment(env: Dict[str, str], home: str, root: str, paths: List[str]) -> None:
    os.environ.clear()
    for name in ("LINES", "COLUMNS"):  # readline, which pytest imports, sets them behind Python's back
        os.unsetenv(name)
    os.environ.update(env)
    os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "PYTEST_DEBUG_TEMPROOT"), home))
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    tempfile.tempdir = None  # the warm-up chose one before the run had its own
    os.chdir(root)


def execute_program(words: List[str]) -> int:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, other programs count on them
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        sys.stderr.write("%s: %s\n" % (words[0], error.strerror))
        return 127


# ---- pytest: forked, or started cold


def loaded_names() -> Set[str]:
    """Top-level modules that a forked run finds imported already."""
    return {name.partition(".")[0] for name in sys.modules} - {"__main__"}


def needs_cold_start(env: Dict[str, str], paths: List[str], arguments: List[str], root: str) -> bool:
    """Would a new interpreter see something else than a fork of this one? Either what it reads when it starts differs,
    or the tree holds a module of a name that is imported here already.
    """
    started_with = {name: value for name, value in os.environ.items() if name.startswith(START_VARIABLES)}
    wanted = {name: value for name, value in env.items() if name.startswith(START_VARIABLES)}
    if any(wanted.get(name) != started_with.get(name) for name in {*wanted, *started_with} - {"PYTHONPATH"}):
        return True
    loaded = loaded_names()
    return any(loaded & modules_in(folder) for folder in set(paths) | import_folders(arguments, root))


def modules_in(folder: str) -> Set[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return set()
    files = {name.partition(".")[0] for name in names if name.endswith((".py", ".so"))}
    return files | {name for name in names if os.path.isfile(os.path.join(folder, name, "__init__.py"))}


def import_folders(arguments: List[str], root: str) -> Set[str]:
    """The folders that pytest puts on the import path for its arguments."""
    found = set()  # type: Set[str]
    for argument in arguments or ["."]:
        path = os.path.normpath(os.path.join(root, argument.partition("::")[0]))
        folders = [folder for folder, _, _ in os.walk(path)] if os.path.isdir(path) else [os.path.dirname(path)]
        for folder in folders:
            while os.path.isfile(os.path.join(folder, "__init__.py")) and len(folder) > len(root):
                folder = os.path.dirname(folder)
            found.add(folder)
    return found


def start_cold(source: str, command: Dict[str, Any], root: str, records_w: int) -> int:
    """pytest in a new interpreter with the packages of this one, under the same reporter."""
    os.set_inheritable(records_w, True)
    file = tempfile.TemporaryFile("w+", encoding="utf-8")
    call = "sys.exit(run_pytest(json.loads(%r), %r, %d))\n" % (json.dumps(command), root, records_w)
    file.write(COLD_PATH + "%s\n%s" % (source, call))
    file.flush()
    file.seek(0)
    os.set_inheritable(file.fileno(), True)
    flags = ["-S"] if sys.flags.no_site else []
    return execute_program([sys.executable, "-s", "-B"] + flags + ["-c", COLD_START % file.fileno()] + sys.argv[1:])
