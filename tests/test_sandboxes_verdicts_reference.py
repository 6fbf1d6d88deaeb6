"""A forked run of pytest and a cold `python -m pytest` give the same verdicts, test by test: reference programs.

The other half is a file of its own, so that the two run beside each other.
"""

from __future__ import annotations

import pytest

from sandboxes.docker_sandbox import DockerBackend
from suites.base import load
from tests.verdicts import disagreements


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.parametrize("suite", ["quixbugs", "minibugs"])
def test_forked_runs_agree_with_cold_pytest_on_reference_programs(suite: str, docker_backend: DockerBackend) -> None:
    different, tests, failing = disagreements(load(suite), "reference", docker_backend)
    assert different == {}
    assert tests > 100
    assert not failing
