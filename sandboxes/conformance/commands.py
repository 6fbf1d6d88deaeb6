"""Checks of what comes back from a command: how it ended, what it wrote, what it found around it."""

from __future__ import annotations

import json
import signal

from sandboxes.base import Command, Limit, Limits
from sandboxes.conformance.checking import (
    EMPTY,
    Check,
    Place,
    json_of,
    python,
    require,
    same,
    sh,
    still_works,
)
from sandboxes.guest_sandbox import ENVIRONMENT

FORGER = r"""
import os, struct
reply = b'{"exit_code": 0, "records": []}'
for fd in range(64):
    try: os.write(fd, struct.pack(">I", len(reply)) + reply)
    except OSError: pass
raise SystemExit(3)
"""


def exit_code_and_both_streams_come_back(place: Place) -> None:
    """The exit code is the program's, the output both its streams in the order of writing, and no limit was hit."""
    result = sh(place.sandbox, "echo out; echo err >&2; echo out again; exit 7")
    found = (result.exit_code, result.output, result.hit)
    same("code, output, limits", found, (7, "out\nerr\nout again\n", frozenset()))
    same("records of a plain command", result.records, ())


def death_by_signal_is_a_negative_code(place: Place) -> None:
    """A run that was killed by signal n has the exit code -n."""
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGABRT):
        same(f"exit code after signal {number}", sh(place.sandbox, f"kill -{number:d} $$").exit_code, -number)


def missing_program_is_named(place: Place) -> None:
    """A program that is not there gives 127, as in a shell, and its name in the output."""
    result = place.sandbox.run(EMPTY, Command(("no-such-program",)))
    same("exit code", result.exit_code, 127)
    require("no-such-program" in result.output, f"the output does not name the program: {result.output!r}")


def arguments_arrive_as_they_are(place: Place) -> None:
    """Nothing between the caller and the program reads the words of a command: no shell, no expansion."""
    words = ("a b", "$HOME", "*", "'", '"', "\\", "", "é✓", "-n")
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    result = place.sandbox.run(EMPTY, Command(("python3", "-c", code, *words)))
    same("arguments", result.output, json.dumps(list(words)) + "\n")


def empty_output_is_empty(place: Place) -> None:
    """A command that writes nothing has an empty output."""
    result = sh(place.sandbox, "true")
    same("code and output", (result.exit_code, result.output), (0, ""))


def output_is_unicode(place: Place) -> None:
    """Output is UTF-8; bytes that are not become replacement characters, and nothing else is changed."""
    result = sh(place.sandbox, r"printf 'h\303\251 \342\234\223 \377e\000n\rd'")
    same("output", result.output, "hé ✓ \ufffde\0n\rd")


def long_output_keeps_head_and_tail(place: Place) -> None:
    """Of a long output the middle is dropped, and Limit.OUTPUT says so; one that just fits is whole."""
    code = "print('HEAD'); print('x' * 1_000_000); print('TAIL')"
    result = python(place.sandbox, code, Limits(output_bytes=1000))
    same("limits", result.hit, {Limit.OUTPUT})
    kept = result.output.startswith("HEAD\n") and result.output.endswith("TAIL\n") and len(result.output) < 1100
    require(kept, f"head and tail were not kept: {result.output!r}")
    whole = python(place.sandbox, "print('x' * 999)", Limits(output_bytes=1000))
    same("an output that fits", (whole.output, whole.hit), ("x" * 999 + "\n", frozenset()))


def endless_output_ends_at_the_wall_limit(place: Place) -> None:
    """Output is read as fast as it comes and never kept: a flood costs a run its time and nothing else."""
    result = sh(place.sandbox, "yes", Limits(wall_s=0.5, output_bytes=1000))
    same("limits and code", (result.hit, result.exit_code), ({Limit.OUTPUT, Limit.WALL}, -signal.SIGKILL))
    require(len(result.output) < 1100, f"{len(result.output)} characters were kept of 1000")


def nothing_is_on_standard_input(place: Place) -> None:
    """Standard input is empty and at its end."""
    same("output", sh(place.sandbox, "cat; echo end").output, "end\n")


def run_starts_in_the_trees_root(place: Place) -> None:
    """The working directory is the tree's root, new files are readable by all, and the root has one name everywhere."""
    same("directory and mask", sh(place.sandbox, "pwd; umask").output, "<repository>\n0022\n")


def paths_are_shown_relative(place: Place) -> None:
    """Where a tree lies is nobody's business: its paths are shown relative, and only its own."""
    output = sh(place.sandbox, "echo $PWD/pkg/x.py; echo $PWD-not; echo /other$PWD/y").output
    require(output.startswith("pkg/x.py\n"), f"a path of the tree is not relative: {output!r}")
    require("<repository>" not in output and "\n/other/" in output, f"another path was changed: {output!r}")


def temporary_directory_has_one_name(place: Place) -> None:
    """Python's temporary directory is shown as /tmp, wherever it lies."""
    same("output", python(place.sandbox, "import tempfile; print(tempfile.gettempdir())").output, "/tmp\n")


def environment_is_what_is_declared(place: Place) -> None:
    """A run has the driver's variables and the command's, these over those, and none of the host's."""
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    result = place.sandbox.run(EMPTY, Command(("python3", "-c", code), env={"DECLARED": "yes é", "TZ": "Asia/Tokyo"}))
    found = json_of(result)
    path = found.pop("PATH", "")
    require(path.endswith(ENVIRONMENT["PATH"]), f"PATH is {path!r}")
    expected = ENVIRONMENT | {"DECLARED": "yes é", "TZ": "Asia/Tokyo", "PYTHONPATH": "<repository>"}
    expected |= dict.fromkeys(("HOME", "TMPDIR", "PYTEST_DEBUG_TEMPROOT"), "/tmp")
    del expected["PATH"]
    same("environment", found, expected)


def import_path_is_what_is_stated(place: Place) -> None:
    """PYTHONPATH holds the directories that the command names, in their order, and no others."""
    for stated, wanted in (((), ""), (("src", "lib/more"), "src:lib/more"), (("src", "."), "src:<repository>")):
        result = place.sandbox.run(EMPTY, Command(("sh", "-c", "echo $PYTHONPATH"), pythonpath=stated))
        same(f"PYTHONPATH for {stated}", result.output, f"{wanted}\n")


def pipelines_end_as_they_do_elsewhere(place: Place) -> None:
    """A program that writes to a closed pipe dies of it: signals have their usual meaning."""
    same("output", sh(place.sandbox, "yes | head -n 1; echo done").output, "y\ndone\n")


def run_may_look_at_its_own_process(place: Place) -> None:
    """A run can list its own descriptors and open its own standard output by name."""
    code = "import os; os.listdir('/proc/self/fd'); print('x', file=open('/dev/stdout', 'w'))"
    same("output", python(place.sandbox, code).output, "x\n")


def processor_time_is_counted(place: Place) -> None:
    """The CPU seconds of a run are those of all its processes, and waiting costs none."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    result = sh(place.sandbox, f"python3 -c '{burn}' & python3 -c '{burn}' & wait")
    require(result.cpu_s >= 0.6, f"{result.cpu_s} CPU seconds were counted of more than 0.6")
    slept = sh(place.sandbox, "sleep 0.5")
    require(slept.wall_s >= 0.5, f"{slept.wall_s} s were counted of more than 0.5")


def output_is_never_taken_for_a_reply(place: Place) -> None:
    """What a run writes, to whatever descriptor it finds, is its output and not the guest's word."""
    result = python(place.sandbox, FORGER)
    same("exit code", result.exit_code, 3)
    require('"exit_code": 0' in result.output, f"the forged reply is not in the output: {result.output!r}")
    still_works(place.sandbox)


CHECKS = (
    Check(exit_code_and_both_streams_come_back),
    Check(death_by_signal_is_a_negative_code),
    Check(missing_program_is_named),
    Check(arguments_arrive_as_they_are),
    Check(empty_output_is_empty),
    Check(output_is_unicode),
    Check(long_output_keeps_head_and_tail),
    Check(endless_output_ends_at_the_wall_limit),
    Check(nothing_is_on_standard_input),
    Check(run_starts_in_the_trees_root),
    Check(paths_are_shown_relative),
    Check(temporary_directory_has_one_name),
    Check(environment_is_what_is_declared),
    Check(import_path_is_what_is_stated),
    Check(pipelines_end_as_they_do_elsewhere),
    Check(run_may_look_at_its_own_process),
    Check(processor_time_is_counted),
    Check(output_is_never_taken_for_a_reply),
)
