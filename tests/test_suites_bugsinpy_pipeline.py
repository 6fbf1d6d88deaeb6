"""BugsInPy from end to end on the small world: images built by pip, validation, and all that can be done with tasks, in
Docker. One file, so that the images are built once.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from sandboxes.docker_sandbox import DockerBackend
from sandboxes.leftovers import engine
from sandboxes.python_images import TEMPLATE_VARIABLE
from suites.bugsinpy.status import BugStatus, State, read_status
from suites.bugsinpy.suite import DATA_SET_VARIABLE, BugsinpySuite
from tests.bugsinpy_leaks import Secrets, blob_of, leaks_in_container, secrets_of
from tests.bugsinpy_place import Place, has_container, left_by, need_base_images, new_place, remove, there

pytestmark = [pytest.mark.docker, pytest.mark.slow]
ORACLE = ("--llm-provider", "reference")
NO_PIP = {TEMPLATE_VARIABLE: "nowhere.example/no-such-image:{nodot}"}
FERRY_BUGS = ("bugsinpy:ferry-1", "bugsinpy:ferry-2")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The world, validated in images that were built for that: by a command that was killed, by one that was not, and,
    for one subject, by `validate` itself. Outside of pytest's own directories: the replay at the end of the session
    knows nothing of another data set."""
    need_base_images("3.6", "3.7", "3.8")
    with tempfile.TemporaryDirectory() as scratch:
        place = new_place(Path(scratch))
        remove(place.images())
        try:
            build = ("images", "build", "bugsinpy:tally")
            killed = place.start(*build)
            place.said["left"] = "\n".join(place.kill(killed, lambda: has_container(killed)))
            code, place.said["build"] = place.ended(*build)
            assert code == 1, place.said["build"]
            place.said["validate"] = place.run(
                "suites", "validate", "bugsinpy", "--repeat", "3", "--num-workers", "2", "--isolation", "run"
            )
            yield place
        finally:
            remove(place.images())


@pytest.fixture(scope="module")
def played(place: Place) -> str:
    """A run of the reference on all bugs; its directory's name."""
    place.eval("reference", "bugsinpy", *ORACLE)
    return "reference"


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    with engine() as found:
        yield found


# ---- images and validation


def test_a_build_that_was_killed_leaves_nothing_and_is_made_up_for(place: Place) -> None:
    assert place.said["left"] == ""
    assert re.search(r"^2 of 3 are there, 1 failed; ", place.said["build"], re.M)
    assert "Python 3.99  FAILED: environments are made for Python 3.6 to 3.11, not 3.99" in place.said["build"]


def test_validation_builds_what_is_missing_and_bugs_share_images(place: Place) -> None:
    assert "repo-agent: 2 of 4 environments are missing: building them" in place.said["validate"]
    assert len(there(place.images())) == 3
    assert "building" not in place.run("suites", "validate", "bugsinpy:ferry-1", "--isolation", "run")


def test_what_is_built_is_listed_and_verified_and_not_built_again(place: Place) -> None:
    there, missing = (place.images(f":tally-{number}")[0].rpartition(":")[2] for number in (14, 16))
    listed = place.run("images", "ls")
    assert there in listed
    assert missing not in listed
    code, said = place.ended("images", "verify", "bugsinpy:tally")
    assert code == 1
    assert re.search(rf"^{there}  Python 3\.8\.\d+  works  pytest 8", said, re.M)
    assert f"{missing}  BROKEN  it is missing\n" in said
    assert said.endswith("2 of 3 images work, 1 do not\n")
    assert "is there" in place.run("images", "build", "bugsinpy:tally-14")


def test_what_was_relaxed_is_told_and_kept_in_the_image(place: Place, client: docker.DockerClient) -> None:
    labels = client.images.get(place.images(":tally-14")[0]).labels
    assert list(json.loads(labels["repo-agent.relaxed"])) == ["six==99.0.0"]
    assert list(json.loads(labels["repo-agent.dropped"])) == ["requirements-txt==1.0.0"]
    assert "relaxed: six==99.0.0 -> " in place.said["build"]


def test_every_bug_comes_out_in_its_state_with_its_tests(place: Place) -> None:
    """And with other tests of the same files."""
    status = place.status
    assert {name: one.state for name, one in status.items()} == {bug.id: State(bug.state) for bug in place.world.bugs}
    for bug in place.world.bugs:
        one, reproduced = status[bug.id], bug.state == "reproduced"
        assert set(bug.expected) & set(one.failing) == set(bug.failing if reproduced else ()), bug.id
        assert set(bug.expected) & set(one.expected) == set(bug.expected if reproduced else ()), bug.id
        assert bool(one.expected) == reproduced, bug.id
        assert set(one.quarantined) <= set(bug.flaky), bug.id
        assert bool(one.quarantined) == bool(bug.flaky), bug.id


def test_what_cannot_be_used_is_explained_in_one_line(place: Place) -> None:
    status = place.status
    for one in status.values():
        assert bool(one.why) == (one.state is not State.REPRODUCED), one.bug
        assert "\n" not in one.why, one.bug
    assert "inkwell/ghost" in status["ghost-1"].why
    assert "cannot be built" in status["tally-16"].why


def test_a_validation_that_was_killed_keeps_what_it_saw_and_another_one_completes_it(place: Place) -> None:
    file = place.directory / "other.jsonl"
    validate = ("suites", "validate", "bugsinpy:ferry", "--repeat", "1", "--isolation", "run", "--status", str(file))
    assert place.kill(place.start(*validate), lambda: bool(read_status(file))) == []
    kept = read_status(file)
    assert State.REPRODUCED in {one.state for one in kept.values()}
    assert len(kept) < 8
    place.run(*validate)
    whole = read_status(file)
    assert len(whole) == 8
    assert {bug: whole[bug].state for bug in kept} == {bug: one.state for bug, one in kept.items()}


# ---- evaluation


def test_the_fixes_score_one_and_nothing_scores_zero(place: Place, played: str) -> None:
    assert place.scores(played) == dict.fromkeys(place.reproduced, 1.0)
    place.eval("noop", "bugsinpy", "--llm-provider", "noop", "--isolation", "run")
    assert place.scores("noop") == dict.fromkeys(place.reproduced, 0.0)


def test_a_run_is_replayed_in_both_isolations(place: Place, played: str) -> None:
    for isolation in ("container", "run"):
        place.run("replay", played, "--isolation", isolation, "--limit", "2")


def test_a_run_is_rescored_and_its_steps_are_scored(place: Place) -> None:
    place.eval("scored", "bugsinpy:ferry-2", *ORACLE)
    place.run("rescore", "scored", "--isolation", "run")
    place.run("score-steps", "scored", "--isolation", "run")
    log = (place.directory / "scored" / "traces.jsonl").read_text()
    notes = [event["note"] for event in map(json.loads, log.splitlines()) if event["event"] == "note"]
    assert [note["score"]["value"] for note in notes if note["kind"] == "rescore"] == [1.0]
    passed = [(note["passed"], note["expected"]) for note in notes if note["kind"] == "step_score"]
    assert [before < expected for before, expected in passed] == [True] * (len(passed) - 1) + [False]


def test_an_evaluation_that_was_killed_goes_on(place: Place) -> None:
    log = place.directory / "killed" / "traces.jsonl"
    argv = (
        "eval",
        "--suite",
        "bugsinpy:ferry",
        "--trace-dir",
        "killed",
        *ORACLE,
        "--isolation",
        "run",
        "--no-verdict-cache",
    )
    killed = place.start(*argv)
    assert place.kill(killed, lambda: log.exists() and '"event":"end"' in log.read_text()) == []
    assert "resumed: " in place.run(*argv, "--resume")
    assert place.scores("killed") == {bug: 1.0 for bug in place.reproduced if bug.startswith("ferry")}


def test_folds_by_project_are_suites_that_share_no_project(place: Place) -> None:
    place.run("suites", "split", "bugsinpy", "--by", "project", "--folds", "2", "--out", "folds")
    for number in (1, 2):
        parts = [f"folds/bugsinpy_fold{number}_{part}_suite.json" for part in ("train", "test")]
        tasks = [json.loads((place.directory / part).read_text())["tasks"] for part in parts]
        assert sorted(tasks[0] + tasks[1]) == sorted(place.reproduced)
        assert {task.split("-")[0] for task in tasks[0]}.isdisjoint(task.split("-")[0] for task in tasks[1])
    place.eval("fold", "folds/bugsinpy_fold1_test_suite.json", *ORACLE, "--limit", "2", "--isolation", "run")
    assert list(place.scores("fold").values()) == [1.0, 1.0]


# ---- training data


def test_forks_give_pairs_and_a_solving_path_gives_rows_that_are_sound(place: Place) -> None:
    flags = "--temperature 1.5 --max-iters 4 --rollouts 4 --fork-at write --fork-rollouts 64 --allow-test-split"
    asked = ("--suite", "bugsinpy:ferry-2", *ORACLE, *flags.split(), "--trace-dir", "prefs", "--out", "prefs.jsonl")
    place.run("prefs", *asked)
    assert (place.directory / "prefs.jsonl").read_text().count("\n") > 0
    place.run("data", "check", "prefs.jsonl")
    extract = ("sft-extract", "--trace-dir", "prefs", "--solving-path", "--allow-test-split", "--output", "rows.jsonl")
    place.run(*extract)
    assert (place.directory / "rows.jsonl").read_text().count("\n") > 0
    place.run("data", "check", "rows.jsonl")


# ---- machines that lack something


def test_images_travel_to_a_machine_without_a_network(place: Place) -> None:
    ferry = place.images(":ferry")
    place.run("images", "export", "bugsinpy:ferry", "--out", "ferry.tar")
    remove(ferry)
    assert there(ferry) == set()
    place.run("images", "import", "ferry.tar", more=NO_PIP)
    assert "building" not in place.eval("imported", FERRY_BUGS[1], *ORACLE, "--isolation", "run", more=NO_PIP)
    assert place.scores("imported") == {"ferry-2": 1.0}


def test_an_evaluation_builds_what_is_missing(place: Place) -> None:
    remove(place.images(":ferry"))
    said = place.eval("built", FERRY_BUGS[0], *ORACLE)
    assert said.count("repo-agent: 1 of 1 environments are missing: building them") == 1
    assert place.scores("built") == {"ferry-1": 1.0}


@pytest.fixture
def hopeful(place: Place) -> Iterator[Place]:
    """Bugs without a repository or an environment are held for reproduced."""
    before = place.status_file.read_bytes()
    lines = [
        BugStatus(bug=bug, state=State.REPRODUCED, expected=("a.py::a",), failing=("a.py::a",)).model_dump_json()
        for bug in ("ghost-1", "tally-16")
    ]
    kept = [line for line in before.decode().splitlines() if not re.search(r'"(ghost-1|tally-16)"', line)]
    place.status_file.write_text("".join(f"{line}\n" for line in [*kept, *lines]))
    yield place
    place.status_file.write_bytes(before)


def test_bugs_that_cannot_be_played_are_named_and_the_others_are_played(hopeful: Place) -> None:
    content = {"name": "three", "suite": "bugsinpy", "tasks": ["ferry-1", "ghost-1", "tally-16"], "made_by": "a test"}
    with pytest.MonkeyPatch.context() as patch:
        hopeful.enter(patch)
        content["version"] = BugsinpySuite().version_of(content["tasks"])
    (hopeful.directory / "three.json").write_text(json.dumps(content))
    hopeful.eval("three", "three.json", *ORACLE, "--isolation", "run")
    assert hopeful.scores("three") == {"ferry-1": 1.0}
    notices = [line for line in hopeful.report("three")["notices"] if line.startswith("left out: ")]
    assert len(notices) == 2
    assert re.match(r"left out: ghost-1: .*inkwell/ghost", notices[0])
    assert re.match(r"left out: tally-16: its environment cannot be built: .*3\.99", notices[1])


def test_where_no_bug_can_be_played_one_line_says_so(hopeful: Place) -> None:
    code, said = hopeful.ended("eval", "--suite", "bugsinpy:ghost", *ORACLE, "--trace-dir", "none")
    assert code in (2, 3)
    assert len(said.splitlines()) == 1, said
    assert "inkwell/ghost" in said


@pytest.mark.parametrize(
    ("flags", "more", "why"),
    [
        (("--sandbox", "bubblewrap"), {}, "tasks such as ferry-1 have images of their own: they need --sandbox docker"),
        ((), {DATA_SET_VARIABLE: "inkwell"}, "REPO_AGENT_BUGSINPY must be owner/name@commit, not 'inkwell'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    flags: tuple[str, ...], more: dict[str, str], why: str, place: Place
) -> None:
    code, said = place.ended("eval", "--suite", FERRY_BUGS[0], *flags, "--trace-dir", "none", more=more)
    assert code == 2
    assert said.startswith(f"repo-agent: error: {why}")
    assert len(said.splitlines()) == 1


# ---- leaks


@pytest.fixture(scope="module")
def secrets(place: Place) -> dict[str, Secrets]:
    return {bug.id: secrets_of(place.world, bug) for bug in place.world.bugs if bug.state == "reproduced"}


def test_the_agent_is_shown_nothing_of_the_fix(
    place: Place, secrets: dict[str, Secrets], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.enter(monkeypatch)
    for part in ("", "+failures"):
        for task in BugsinpySuite(part=part).tasks():
            tree = {path: task.tree.file(path).content for path in task.tree.paths}
            assert secrets[task.id].found_in(tree | {"the goal": task.goal.encode()}) == []
            assert [path for path in tree if ".git" in path.split("/")] == []


def test_a_test_run_can_read_nothing_of_the_fix(
    place: Place, secrets: dict[str, Secrets], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.enter(monkeypatch)
    tasks = BugsinpySuite().tasks()
    shown = tasks[0].tree.file("ferry/timetable.py").content.decode()
    planted = Secrets((max(shown.splitlines(), key=len).strip(),), frozenset({blob_of(shown.encode())}))
    with closing(DockerBackend(tasks[0].image)) as backend:
        assert len(leaks_in_container(backend, tasks[0], planted)) == 2, "the walk finds what is there"
        found = {task.id: leaks_in_container(backend, task, secrets[task.id]) for task in tasks}
    assert {bug: leaks for bug, leaks in found.items() if leaks} == {}


def test_the_commands_leave_no_container(place: Place, client: docker.DockerClient) -> None:
    process = place.start("eval", "--suite", FERRY_BUGS[0], *ORACLE, "--trace-dir", "last")
    process.communicate()
    assert left_by(client, process.pid) == []
