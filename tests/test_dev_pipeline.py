from pathlib import Path
from dataclasses import replace
import pytest
from tests.bugsinpy_place import *
from tests.bugsinpy_world import build_world
import tests.test_suites_bugsinpy_pipeline as m
from tests.test_suites_bugsinpy_pipeline import *
import tempfile
@pytest.fixture(scope="module")
def place():
    with tempfile.TemporaryDirectory() as s:
        w=replace(build_world(Path(s)), mirror=Path("/tmp/e2e/place/mirror"))
        yield Place(Path("/tmp/e2e/place"), w, {"left":"","build":"","validate":""})
