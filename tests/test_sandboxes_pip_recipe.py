"""The recipe of environments: what pip says is understood, and answered by the smallest change that helps."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from packaging.version import Version

from sandboxes.base import SandboxError
from sandboxes.pip_output import FaultKind, PipFault, fault_of, name_of, ranked, repinned
from sandboxes.pip_recipe import HAS_COMPILER, LOOK, PIP, WRITE, NoCompiler, PipRecipe
from sandboxes.pip_settings import read_listing
from sandboxes.python_spec import PythonSpec

# What pip 21.3.1 printed, shortened to the lines that matter; the index has become <index>.

NO_VERSION = """\
ERROR: Could not find a version that satisfies the requirement psutil==5.7.1 (from versions: 5.6.7, 5.7.0, 5.7.2, 5.8.0)
ERROR: No matching distribution found for psutil==5.7.1
"""
NO_PACKAGE = """\
Collecting toml==0.10.1
  Downloading toml-0.10.1-py2.py3-none-any.whl (19 kB)
ERROR: Could not find a version that satisfies the requirement PythonLabs==1.0.2 (from versions: none)
ERROR: No matching distribution found for PythonLabs==1.0.2
"""
NO_METADATA = """\
Collecting mysqlclient==1.4.0
  Downloading mysqlclient-1.4.0.tar.gz (85 kB)
  Preparing metadata (setup.py): started
  Preparing metadata (setup.py): finished with status 'error'
  ERROR: Command errored out with exit status 1:
   command: /usr/local/bin/python3 -c 'import io, os, sys, setuptools, tokenize; …' egg_info --egg-base /tmp/pip-pip-egg
       cwd: /tmp/pip-install-zh7ctodg/mysqlclient_7bca5371597d4a42baf8903908f8fd6c/
  Complete output (10 lines):
  /bin/sh: 1: mysql_config: not found
  Traceback (most recent call last):
    File "<string>", line 1, in <module>
    File "/tmp/pip-install-zh7ctodg/mysqlclient_7bca5371597d4a42baf8903908f8fd6c/setup.py", line 16, in <module>
      metadata, options = get_config()
  OSError: mysql_config not found
  ----------------------------------------
WARNING: Discarding https://<index>/mysqlclient-1.4.0.tar.gz (from https://<index>/simple/mysqlclient/). Command errored
ERROR: Could not find a version that satisfies the requirement mysqlclient==1.4.0 (from versions: 1.3.14, 1.4.0, 1.4.1)
ERROR: No matching distribution found for mysqlclient==1.4.0
"""
NO_WHEEL = """\
Building wheels for collected packages: pyodbc
  Building wheel for pyodbc (setup.py): started
  Building wheel for pyodbc (setup.py): finished with status 'error'
  ERROR: Command errored out with exit status 1:
  Complete output (16 lines):
  building 'pyodbc' extension
  In file included from src/buffer.cpp:12:
  src/pyodbc.h:56:10: fatal error: sql.h: No such file or directory
     56 | #include <sql.h>
  compilation terminated.
  error: command 'gcc' failed with exit status 1
  ----------------------------------------
  ERROR: Failed building wheel for pyodbc
  Running setup.py clean for pyodbc
Failed to build pyodbc
Installing collected packages: pyodbc
    Running setup.py install for pyodbc: started
    Running setup.py install for pyodbc: finished with status 'error'
    ERROR: Command errored out with exit status 1:
    Complete output (16 lines):
    running install
    building 'pyodbc' extension
    src/pyodbc.h:56:10: fatal error: sql.h: No such file or directory
    compilation terminated.
    error: command 'gcc' failed with exit status 1
    ----------------------------------------
ERROR: Command errored out with exit status 1: /usr/local/bin/python3 -u -c '…' install Check the logs for full output.
"""
NO_WHEEL_FROM_PYPROJECT = """\
  Building wheel for python-ldap (pyproject.toml): started
  Building wheel for python-ldap (pyproject.toml): finished with status 'error'
  ERROR: Command errored out with exit status 1:
  Complete output (58 lines):
  Modules/common.h:15:10: fatal error: lber.h: No such file or directory
  compilation terminated.
  error: command '/usr/bin/gcc' failed with exit code 1
  ----------------------------------------
  ERROR: Failed building wheel for python-ldap
Failed to build python-ldap
ERROR: Could not build wheels for python-ldap, which is required to install pyproject.toml-based projects
"""
TWICE = """\
ERROR: Cannot install six==1.14.0 and six==1.15.0 because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/en/latest/user_guide/#fixing-conflicting-dependencies

The conflict is caused by:
    The user requested six==1.15.0
    The user requested six==1.14.0
"""
NOT_A_REQUIREMENT = """\
ERROR: Invalid requirement: 'six=1.0'
Hint: = is not a valid operator. Did you mean == ?
"""
NO_CLONE = """\
Collecting git+https://<host>/x/y@abc
  Cloning https://<host>/x/y (to revision abc) to /tmp/pip-req-build-n4qw33v1
  fatal: unable to access 'https://<host>/x/y/': Could not resolve host: <host>
WARNING: Discarding git+https://<host>/x/y@abc. Command errored out with exit status 128: git clone -q Check the logs
ERROR: Command errored out with exit status 128: git clone --filter=blob:none -q Check the logs for full command output.
"""
NO_FILE = """\
Collecting https://<host>/nothing-1.0.tar.gz
  ERROR: HTTP error 404 while getting https://<host>/nothing-1.0.tar.gz
ERROR: Could not install requirement https://<host>/nothing-1.0.tar.gz because of HTTP error 404 Client Error: Not Found
"""
OTHER_HASH = """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated them, please
    six==1.15.0 from https://<index>/six-1.15.0-py2.py3-none-any.whl#sha256=8b74 (from -r /h.txt (line 1)):
        Expected sha256 0000000000000000000000000000000000000000000000000000000000000000
             Got        8b74bedcbbbaca38ff6d7491d76f2b06b3592611af620f8426e82dddb04a5ced
"""
NO_CONNECTION = """\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'NewConnectionError('<HTTPConnection object at 0x7ff6a661ff50>: Failed to establish a new connection: [Errno 111] \
Connection refused')': /simple/six/
ERROR: Could not find a version that satisfies the requirement six==1.14.0 (from versions: none)
ERROR: No matching distribution found for six==1.14.0
"""
NO_TRUST = """\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'SSLError(SSLError(136, '[X509] no certificate or crl found (_ssl.c:4140)'))': /simple/six/
Could not fetch URL https://<index>/simple/six/: There was a problem confirming the ssl certificate: \
HTTPSConnectionPool(host='<index>', port=443): Max retries exceeded with url: /simple/six/ - skipping
ERROR: Could not find a version that satisfies the requirement six==1.13.0 (from versions: none)
ERROR: No matching distribution found for six==1.13.0
"""
FULL = """\
Installing collected packages: numpy
ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device: '/usr/local/lib/x.so'
"""
FAULTS = {
    NO_VERSION: (FaultKind.MISSING, "psutil==5.7.1"),
    NO_PACKAGE: (FaultKind.MISSING, "PythonLabs==1.0.2"),
    NO_METADATA: (FaultKind.UNBUILDABLE, "mysqlclient==1.4.0"),
    NO_WHEEL: (FaultKind.UNBUILDABLE, "pyodbc"),
    NO_WHEEL_FROM_PYPROJECT: (FaultKind.UNBUILDABLE, "python-ldap"),
    TWICE: (FaultKind.CONFLICT, "six==1.14.0 and six==1.15.0"),
    NOT_A_REQUIREMENT: (FaultKind.REFUSED, "six=1.0"),
    NO_CLONE: (FaultKind.REFUSED, "git+https://<host>/x/y@abc"),
    NO_FILE: (FaultKind.REFUSED, "https://<host>/nothing-1.0.tar.gz"),
    OTHER_HASH: (FaultKind.REFUSED, "six==1.15.0"),
    NO_CONNECTION: (FaultKind.NETWORK, ""),
    NO_TRUST: (FaultKind.NETWORK, ""),
    FULL: (FaultKind.DISK, "/usr/local/lib/x.so"),
}


@pytest.mark.parametrize(("output", "expected"), FAULTS.items())
def test_what_pip_said_is_read_into_a_fault(output: str, expected: tuple[FaultKind, str]) -> None:
    fault = fault_of(output)
    assert (fault.kind, fault.subject) == expected


def test_a_connection_that_was_broken_and_mended_is_no_fault_of_the_network() -> None:
    assert fault_of(NO_CONNECTION.splitlines()[0] + "\n" + NO_VERSION).kind is FaultKind.MISSING


def test_the_cause_of_a_failed_build_is_the_line_that_says_most() -> None:
    assert fault_of(NO_METADATA).why == "OSError: mysql_config not found"
    assert fault_of(NO_WHEEL).why == "src/pyodbc.h:56:10: fatal error: sql.h: No such file or directory"


def test_only_a_build_with_an_environment_of_its_own_is_isolated() -> None:
    assert fault_of(NO_WHEEL_FROM_PYPROJECT).isolated
    assert not fault_of(NO_WHEEL).isolated


def test_what_is_kept_of_an_output_has_no_address() -> None:
    assert fault_of(NO_TRUST).kind is FaultKind.NETWORK
    assert "<index>" not in fault_of(NO_TRUST).why
    assert fault_of("ERROR: see https://user:secret@host/simple now") == PipFault(FaultKind.OTHER, why="see <url> now")


def test_a_requirement_is_known_by_its_canonical_name() -> None:
    names = ["Flask_SQLAlchemy==2.4.1", "a.b[c]>=1; python_version<'3'", "git+https://host/x", "https://host/x.zip"]
    assert [name_of(line) for line in names] == ["flask-sqlalchemy", "a-b", "", ""]


def test_another_version_keeps_the_rest_of_a_requirement() -> None:
    assert repinned("a[b] == 1.0 ; python_version < '3.8'", "1.2") == "a[b]==1.2; python_version < '3.8'"


def test_versions_of_the_same_minor_come_first_then_newer_ones_of_the_same_major_then_any() -> None:
    available = ("1.0", "1.1.0", "1.2.1", "1.2.4", "1.2.9", "1.3.0", "1.4.0", "2.0", "1.2.5rc1")
    found = ranked(Version("1.2.3"), available, frozenset(), must_not_be_built=False)
    assert found == ["1.2.4", "1.2.9", "1.2.1", "1.2.5rc1", "1.3.0", "1.4.0", "2.0", "1.1.0", "1.0"]


def test_wheels_come_first_where_building_has_failed() -> None:
    found = ranked(Version("1.2.3"), ("1.2.4", "1.3.0", "2.0"), frozenset({"2.0", "1.3.0"}), must_not_be_built=True)
    assert found == ["1.3.0", "2.0", "1.2.4"]


# ---- the recipe


class RecordedPip:
    """Answers as pip did: each attempt to install several lines with the next output; everything else goes well."""

    def __init__(self, *outputs: str, available: str = "") -> None:
        self.outputs = list(outputs)
        self.available = available
        self.lines: list[list[str]] = []
        """The requirements of each attempt."""
        self.asked: list[tuple[str, ...]] = []
        self.packages = {"pip": "21.3.1", "pytest": "7.0"}

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        self.asked.append(tuple(argv))
        if argv[-1] == LOOK:
            return 0, json.dumps({"python": "3.7.16", "packages": self.packages, "missing": {}})
        if WRITE in argv and argv[-2].endswith("requirements.txt"):
            self.lines.append(argv[-1].splitlines())
        if tuple(argv[3:5]) == ("index", "versions"):
            return (0, f"Available versions: {self.available}\n") if self.available else (1, NO_CONNECTION)
        if "install" in argv and "-r" in argv:
            output = self.outputs.pop(0) if self.outputs else ""
            return int(bool(output)), output
        return 0, ""


def spec(*requirements: str, extras: tuple[str, ...] = ()) -> PythonSpec:
    return PythonSpec("3.7", requirements, extras)


def test_a_version_that_is_not_there_becomes_the_nearest_one_of_the_same_minor() -> None:
    pip = RecordedPip(NO_VERSION, available="5.7.2")
    installed = PipRecipe(pip).install(spec("psutil==5.7.1", "six==1.15.0"))
    assert installed.relaxed == {"psutil==5.7.1": "5.7.2"}
    assert installed.dropped == {}
    assert pip.lines == [["psutil==5.7.1", "six==1.15.0"], ["psutil==5.7.2", "six==1.15.0"]]


def test_a_package_that_is_not_there_is_dropped_and_the_others_are_installed() -> None:
    pip = RecordedPip(NO_PACKAGE, available="21.3.1")
    installed = PipRecipe(pip).install(spec("pythonlabs==1.0.2", "toml==0.10.1"))
    assert installed.dropped == {"pythonlabs==1.0.2": "no such package"}
    assert pip.lines[-1] == ["toml==0.10.1"]


def test_a_package_that_cannot_be_built_is_dropped_when_its_neighbours_cannot_either() -> None:
    again = [NO_METADATA.replace("mysqlclient==1.4.0", f"mysqlclient=={version}") for version in ("1.4.1", "1.3.14")]
    pip = RecordedPip(NO_METADATA, *again)
    installed = PipRecipe(pip).install(spec("mysqlclient==1.4.0"))
    assert installed.relaxed == {}
    assert installed.dropped == {"mysqlclient==1.4.0": "OSError: mysql_config not found"}
    assert pip.lines == [["mysqlclient==1.4.0"], ["mysqlclient==1.4.1"], ["mysqlclient==1.3.14"]]


def test_a_build_with_the_newest_tools_is_tried_again_with_those_that_are_there() -> None:
    pip = RecordedPip(NO_WHEEL_FROM_PYPROJECT)
    installed = PipRecipe(pip).install(spec("python-ldap==3.4.0", "six==1.15.0"))
    assert (installed.relaxed, installed.dropped) == ({}, {})
    again = (*PIP, "install", "--no-deps", "--no-build-isolation", "python-ldap==3.4.0")
    assert again in {argv[2:] for argv in pip.asked}


def test_what_a_set_up_imports_is_installed_before_it() -> None:
    pip = RecordedPip(NO_METADATA.replace("OSError: mysql_config not found", "ImportError: No module named 'numpy'"))
    installed = PipRecipe(pip).install(spec("mysqlclient==1.4.0", "numpy==1.17.3"))
    assert (installed.relaxed, installed.dropped) == ({}, {})
    assert pip.lines[1:] == [["numpy==1.17.3"], ["mysqlclient==1.4.0"]]


def test_a_fault_that_names_nobody_is_found_by_installing_one_after_the_other() -> None:
    unknown = "ERROR: Exception:\nSomethingOdd: for no reason\n"
    pip = RecordedPip(unknown, unknown)
    installed = PipRecipe(pip).install(spec("bad==1", "good==1"))
    assert installed.dropped == {"bad==1": "Exception:"}
    assert pip.lines == [["bad==1", "good==1"], ["bad==1"], ["good==1"]]


@pytest.mark.parametrize("output", [NO_CONNECTION, NO_TRUST])
def test_a_network_that_fails_is_tried_again_and_drops_nothing(output: str) -> None:
    installed = PipRecipe(RecordedPip(output, output), wait_s=0).install(spec("six==1.14.0"))
    assert (installed.relaxed, installed.dropped) == ({}, {})


def test_a_network_that_goes_on_failing_ends_the_installation() -> None:
    with pytest.raises(SandboxError, match=r"^the package index does not answer: .*NewConnectionError"):
        PipRecipe(RecordedPip(*[NO_CONNECTION] * 9), wait_s=0).install(spec("six==1.14.0"))


def test_an_index_that_does_not_answer_is_not_taken_for_one_that_lacks_a_package() -> None:
    silent = "".join(NO_CONNECTION.splitlines(keepends=True)[1:])
    with pytest.raises(SandboxError, match="the package index does not answer"):
        PipRecipe(RecordedPip(*[silent] * 9), wait_s=0).install(spec("six==1.14.0"))


def test_a_full_disk_ends_the_installation_and_is_named() -> None:
    with pytest.raises(SandboxError, match=r"^no space is left on the Docker engine's disk$"):
        PipRecipe(RecordedPip(FULL)).install(spec("numpy==1.17.3"))
    in_cache = FULL.replace("/usr/local/lib", "/tmp/host-cache/http")
    with pytest.raises(SandboxError, match="the cache directory"):
        PipRecipe(RecordedPip(in_cache)).install(spec("numpy==1.17.3"))


def test_a_compiler_that_is_missing_is_asked_for() -> None:
    pip = RecordedPip(NO_WHEEL)
    with pytest.raises(NoCompiler):
        PipRecipe(lambda argv: (1, "") if argv[-1] == HAS_COMPILER else pip(argv)).install(spec("pyodbc==4.0.30"))
    assert len(pip.lines) == 1, "nothing is relaxed before"


def test_pip_itself_is_never_a_requirement() -> None:
    pip = RecordedPip()
    installed = PipRecipe(pip).install(spec("pip==19.0", "six==1.15.0"))
    assert installed.dropped == {"pip==19.0": "the recipe has its own"}
    assert pip.lines == [["six==1.15.0"]]


# ---- the host's settings


def test_settings_of_installation_and_environment_stand_above_those_for_all() -> None:
    listing = (
        "global.index-url='https://one/simple'\nglobal.default-timeout='9'\ninstall.index-url='https://two/simple'\n"
        ":env:.trusted-host='three'\nfreeze.timeout='10'\nglobal.find-links='https://four\\n/opt/wheels'\n"
    )
    assert read_listing(listing) == {
        "index-url": "https://two/simple",
        "timeout": "9",
        "trusted-host": "three",
        "find-links": "https://four\n/opt/wheels",
    }
