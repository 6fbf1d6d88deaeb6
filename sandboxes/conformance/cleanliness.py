"""Checks of what a run leaves: nothing that a later one could find."""

from __future__ import annotations

from sandboxes.conformance.checking import Check, Place, json_of, pytest_run, python, require, same, sh
from sandboxes.conformance.trees import DEMO, LISTING, laid_out, listing

DAEMONS = """
import os, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.execvp("sleep", ["sleep", "98" + "765"])
    os._exit(0)
subprocess.Popen(["sleep", "98" + "765"], start_new_session=True, close_fds=False)
def sleepers():
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try: count += ("98" + "765").encode() in open("/proc/%s/cmdline" % pid, "rb").read().split(b"\\0")
        except OSError: pass
    return count
"""
START_DAEMONS = DAEMONS + "while sleepers() < 2: time.sleep(0.02)\nprint('started')"
COUNT_DAEMONS = "import os" + DAEMONS[DAEMONS.index("\ndef sleepers") :] + "print(sleepers())"
VANDAL = r"""
import os
def attempt(function, *args):
    try: return function(*args)
    except OSError: pass
attempt(os.remove, "tests/test_one.py")
attempt(os.rename, "pkg", "moved")
for path in ("run.sh", "pkg/deep/data.txt", "tests/test_one.py", "moved/deep/data.txt"):
    attempt(os.chmod, path, 0)
    attempt(lambda: open(path, "w").write("overwritten"))
os.makedirs("new/read-only/inner"); open("new/read-only/inner/file", "w").close()
os.mkdir("sticky"); open("sticky/file", "w").close(); os.mkdir("sticky/folder"); os.chmod("sticky", 0o1777)
open(b"\xff\xfe odd \n name", "w").close()
os.symlink("/etc", "elsewhere"); os.symlink("nowhere", "dangling"); os.mkfifo("pipe")
os.makedirs("1/2"); open("0", "w").close()
top = os.getcwd()
for _ in range(1500):
    os.mkdir("nested-" + "x" * 40); os.chdir("nested-" + "x" * 40)
os.chdir(top)
os.chmod("new/read-only/inner", 0o500); os.chmod("new/read-only", 0o500); os.chmod("new", 0)
attempt(os.chmod, "pkg", 0); attempt(os.chmod, ".", 0)
"""
WRITER = """
import os
for folder, folders, _ in os.walk("/"):
    if folder.startswith(("/proc", "/sys", "/usr", "/root")): folders[:] = []; continue
    try: open(folder + "/left-by-a-run", "w").close(); print(folder)
    except OSError: pass
"""
FINDER = r"find / \( -path /proc -o -path /sys -o -path /usr -o -path /root \) -prune -o -name left-by-a-run -print"
SHARER = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.shmget(0x5eed, 4096, 0o1666) >= 0, libc.semget(0x5eed, 1, 0o1666) >= 0, libc.msgget(0x5eed, 0o1666) >= 0)
"""
SHARED = "tail -qn +2 /proc/sysvipc/*; ls -A /dev/shm /dev/mqueue 2>/dev/null | grep -v '^/dev/' | grep ."


def no_process_outlives_its_run(place: Place) -> None:
    """Daemons are gone, whatever sessions they made and however often they forked."""
    same("output", python(place.sandbox, START_DAEMONS).output, "started\n")
    same("daemons in the next run", python(place.sandbox, COUNT_DAEMONS).output, "0\n")


def daemons_of_tests_do_not_hold_a_run_up(place: Place) -> None:
    """A run ends with its first process, though a daemon keeps its output open."""
    test = "import subprocess\ndef test_it(): subprocess.Popen(['sleep', '98765'], start_new_session=True)\n"
    result = pytest_run(place.sandbox, {"test_it.py": test})
    same("code and limits", (result.exit_code, result.hit), (0, frozenset()))
    same("daemons in the next run", python(place.sandbox, COUNT_DAEMONS).output, "0\n")


def vandalised_tree_is_as_it_was(place: Place) -> None:
    """Files added, removed, moved, overwritten, closed by their modes, nested without end: the next run sees none."""
    laid_out(place, [DEMO])
    vandal = python(place.sandbox, VANDAL, tree=DEMO)
    same("code and output of the vandal", (vandal.exit_code, vandal.output), (0, ""))
    laid_out(place, [DEMO, DEMO.write("pkg/new.py", b"1")])


def removed_tree_is_as_it_was(place: Place) -> None:
    """A run that removes all that it may, its own directory too, breaks nothing for the next."""
    python(place.sandbox, "import os, shutil; shutil.rmtree(os.getcwd(), ignore_errors=True)", tree=DEMO)
    laid_out(place, [DEMO])


def links_are_not_followed(place: Place) -> None:
    """What is removed after a run is the link that it left, and not what it leads to."""
    script = "mkdir /tmp/a && echo x > /tmp/a/x; ln -s $PWD/pkg here; ln -s $PWD /tmp/there; ln -s / root; ln pkg/x y"
    sh(place.sandbox, script, tree=DEMO)
    laid_out(place, [DEMO])


def temporary_files_are_gone(place: Place) -> None:
    """The temporary directory is empty at the start of each run."""
    left = "import tempfile; tempfile.mkdtemp(); open(tempfile.gettempdir() + '/x', 'w').close()"
    same("exit code", python(place.sandbox, left).exit_code, 0)
    look = "import os, tempfile; print(os.listdir(tempfile.gettempdir()))"
    same("temporary files in the next run", python(place.sandbox, look).output, "[]\n")


def no_place_keeps_files(place: Place) -> None:
    """Wherever a run can write, /dev/shm too, its files are gone in the next one."""
    wrote = set(python(place.sandbox, WRITER).output.splitlines())
    require({"/tmp", "/dev/shm"} <= wrote, f"a run can write to {wrote} only")
    same("files in the next run", sh(place.sandbox, f"{FINDER} 2>/dev/null").output, "")


def no_shared_memory_stays(place: Place) -> None:
    """System V objects of a run are gone in the next one."""
    same("made", python(place.sandbox, SHARER).output, "True True True\n")
    same("objects in the next run", sh(place.sandbox, SHARED).output, "")


def import_of_a_left_module_fails(place: Place) -> None:
    """A module that a run wrote, compiled or not, is not imported by a later one."""
    leave = "open('left.py', 'w').write('x = 1'); import py_compile; py_compile.compile('left.py'); import left"
    same("exit code", python(place.sandbox, leave).exit_code, 0)
    test = "import pytest\ndef test_it():\n    with pytest.raises(ImportError):\n        import left\n"
    same("exit code", pytest_run(place.sandbox, {"test_it.py": test}).exit_code, 0)


def listing_is_the_same_after_all(place: Place) -> None:
    """Two runs of the same command on the same tree, one after all that was done here, have the same output."""
    with place.own() as fresh:
        wanted = json_of(python(fresh, LISTING, tree=DEMO))
    same("the listing", json_of(python(place.sandbox, LISTING, tree=DEMO)), wanted)
    same("the listing", wanted, listing(DEMO))


CHECKS = (
    Check(no_process_outlives_its_run),
    Check(daemons_of_tests_do_not_hold_a_run_up),
    Check(vandalised_tree_is_as_it_was),
    Check(removed_tree_is_as_it_was),
    Check(links_are_not_followed),
    Check(temporary_files_are_gone),
    Check(no_place_keeps_files, needs="boundary"),
    Check(no_shared_memory_stays, needs="boundary"),
    Check(import_of_a_left_module_fails),
    Check(listing_is_the_same_after_all),
)
