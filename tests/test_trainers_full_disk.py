"""What is left, and what is said, where a model does not fit on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

import repo_agent
from tests.small_disk import small_disk
from tests.training_world import make_tiny, result, step_rows, train

pytestmark = pytest.mark.slow
NO_ROOM = "could not be written: there is no room on its disk"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("room", [60_000, 250_000, 400_000])
def test_a_training_goes_on_when_there_is_room_again(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], room: int
) -> None:
    rows, disk = step_rows(tmp_path / "r.jsonl", 2, 2), tmp_path / "disk"
    flags = ["--save-steps", "1", "--epochs", "3"]
    with small_disk(disk):
        (disk / "other").write_bytes(b"x" * (2**20 - room))
        assert train("sft", tiny, rows, disk / "r", *flags) == 2
        assert f"{disk / 'r'} {NO_ROOM}" in capsys.readouterr().err
        (disk / "other").unlink()
        assert train("sft", tiny, rows, disk / "r", *flags, "--resume") == 0
        assert result(disk / "r")["steps"] == 3


def test_nothing_is_left_of_a_model_that_does_not_fit(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, disk = step_rows(tmp_path / "r.jsonl", 2, 2), tmp_path / "disk"
    assert train("sft", tiny, rows, tmp_path / "run") == 0
    with small_disk(disk):
        (disk / "other").write_bytes(b"x" * (2**20 - 80_000))
        for words in (["merge", "--model", str(tmp_path / "run")], ["init-tiny"]):
            assert repo_agent.main(["train", *words, "--output-dir", str(disk / "m")]) == 2
            assert NO_ROOM in capsys.readouterr().err
            assert [item.name for item in disk.iterdir()] == ["other"]
