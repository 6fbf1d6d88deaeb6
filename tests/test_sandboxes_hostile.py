"""Hostile programs that take all there is, do not end, or leave something behind, in every sandbox that is a boundary:
each is contained, is reported as what it was, and leaves the next run as it would have been.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from sandboxes.base import Command, Limit, Limits
from sandboxes.workspace import MappingTree, Workspace
from tests import hostile_bombs as bombs
from tests import hostile_leftovers as leftovers
from tests.hostile_arena import KINDS, SHORT, SMALL, Arena, arena_of

pytestmark = pytest.mark.slow
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module", params=KINDS)
def shared_arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    with arena_of(request) as arena:
        yield arena


@pytest.fixture
def arena(shared_arena: Arena) -> Arena:
    shared_arena.ready()
    return shared_arena


# ---- taking all there is


@pytest.mark.parametrize("bomb", [bombs.FORK_BOMB, bombs.THREAD_BOMB], ids=["processes", "threads"])
def test_process_bomb_hits_its_limit_and_is_gone(arena: Arena, bomb: str) -> None:
    arena.needs("pids_limit")
    result = arena.run(bomb, limits=SHORT)
    assert (result.exit_code, set(result.hit)) == (KILLED, {Limit.PIDS, Limit.WALL})
    arena.assert_unaffected()


def test_memory_bomb_is_killed_for_memory(arena: Arena) -> None:
    arena.needs("memory_limit")
    result = arena.run(bombs.MEMORY_BOMB)
    assert (result.exit_code, set(result.hit)) == (KILLED, {Limit.MEMORY})
    arena.assert_unaffected()


def test_memory_bombs_of_many_processes_are_killed_for_memory(arena: Arena) -> None:
    arena.needs("memory_limit")
    result = arena.run(bombs.MANY_MEMORY_BOMBS, limits=SHORT)
    assert Limit.MEMORY in result.hit
    arena.assert_unaffected()


def test_memory_bomb_in_a_test_is_no_passed_test(arena: Arena) -> None:
    arena.needs("memory_limit")
    module = "def test_bomb():\n" + "".join(f"    {line}\n" for line in bombs.MEMORY_BOMB.splitlines())
    result = arena.run_test(module)
    assert result.hit == {Limit.MEMORY}
    assert [record for record in result.records if record.outcome == "passed"] == []
    arena.assert_unaffected()


def test_memory_that_no_process_is_charged_for_is_the_runs_own(arena: Arena) -> None:
    """Small processes that make themselves bad victims: without namespaces the kernel takes the runner for them."""
    arena.needs("memory_limit")
    result = arena.run(bombs.UNOWNED_MEMORY)
    assert (result.exit_code, set(result.hit)) == (KILLED, {Limit.MEMORY})
    if arena.kind != "docker-run":
        arena.ready()  # a new sandbox
    arena.assert_unaffected()


def test_memory_in_system_v_objects_is_not_missing_to_the_next_run(arena: Arena) -> None:
    arena.needs("memory_limit")
    arena.run(bombs.SHARED_MEMORY_HOG)
    result = arena.run(f"print(len(bytearray(b'x') * {SMALL.memory_bytes * 6 // 10}))")
    assert (result.exit_code, set(result.hit)) == (0, set())
    arena.assert_unaffected()


@pytest.mark.parametrize("place", [".", "/tmp", "/dev/shm"])
def test_full_disk_is_told_and_empty_again(arena: Arena, place: str) -> None:
    result = arena.run(bombs.DISK_FILLER, place)
    assert (result.output, set(result.hit)) == ("No space left on device\n", {Limit.DISK})
    arena.assert_unaffected()


@pytest.mark.parametrize("place", [".", "/tmp", "/dev/shm"])
def test_names_without_content_fill_the_disk_too(arena: Arena, place: str) -> None:
    arena.needs("memory_limit")  # else the memory for names is the machine's
    result = arena.run(bombs.NAME_FILLER, place)
    assert (result.output, set(result.hit)) == ("No space left on device\n", {Limit.DISK})
    arena.assert_unaffected()


def test_leak_of_descriptors_ends_at_a_limit(arena: Arena) -> None:
    result = arena.run(bombs.DESCRIPTOR_LEAK)
    assert (result.output, result.exit_code, set(result.hit)) == ("Too many open files True\n", 0, set())
    arena.assert_unaffected()


def test_endless_output_costs_a_run_its_time(arena: Arena) -> None:
    result = arena.run("while True: print('x' * 10000)", limits=SHORT)
    assert (result.exit_code, set(result.hit)) == (KILLED, {Limit.WALL, Limit.OUTPUT})
    assert len(result.output) < 2 * SHORT.output_bytes
    arena.assert_unaffected()


def test_endless_records_cost_a_run_its_time(arena: Arena) -> None:
    result = arena.run_test(bombs.ENDLESS_RECORDS, limits=SHORT)
    assert (result.exit_code, Limit.WALL in set(result.hit)) == (KILLED, True)
    assert 0 < len(result.records) < 1000
    arena.assert_unaffected()


@pytest.mark.slow
def test_long_report_finds_memory_though_the_disk_is_full(arena: Arena) -> None:
    result = arena.run_test(bombs.RECORDS_BESIDE_A_FULL_DISK)
    assert (result.exit_code, Limit.DISK in result.hit, Limit.MEMORY in result.hit) == (0, True, False)
    assert 100 < len(result.records) < 200
    arena.assert_unaffected()


# ---- not ending


def test_run_that_ignores_every_signal_is_killed_in_time(arena: Arena) -> None:
    result = arena.run(bombs.IGNORES_SIGNALS % "time.sleep(1000)", limits=SHORT)
    assert (result.exit_code, result.output, set(result.hit)) == (KILLED, "ready\n", {Limit.WALL})
    arena.assert_unaffected()


@pytest.mark.slow
def test_run_that_ignores_the_signal_of_the_cpu_limit_is_killed_for_it(arena: Arena) -> None:
    result = arena.run(bombs.IGNORES_SIGNALS % "while True: pass", limits=Limits(cpu_s=1, wall_s=60))
    assert (result.exit_code, result.output, set(result.hit)) == (KILLED, "ready\n", {Limit.CPU})
    arena.assert_unaffected()


def test_run_that_its_own_tracer_keeps_from_ending_ends_in_time(arena: Arena) -> None:
    result = arena.run(bombs.HELD_BY_ITS_TRACER, limits=SHORT)
    assert (result.exit_code, result.output, set(result.hit)) == (KILLED, "y\n", {Limit.WALL})
    arena.assert_unaffected()


def test_busy_children_end_with_their_run(arena: Arena) -> None:
    result = arena.run(bombs.BUSY_CHILDREN, limits=SHORT)
    assert (result.exit_code, set(result.hit)) == (KILLED, {Limit.WALL})
    arena.assert_unaffected()


def test_nothing_survives_its_run(arena: Arena) -> None:
    """Daemons of sessions of their own, deaf, stopped, renamed and listening ones, children of the runner."""
    result = arena.run(bombs.SURVIVORS)
    assert (result.exit_code, result.output, set(result.hit)) == (0, "8\n", set())
    arena.assert_unaffected()


def test_port_of_a_run_is_free_for_the_next(arena: Arena, request: pytest.FixtureRequest) -> None:
    if not arena.is_docker:
        request.applymarker(pytest.mark.xfail(reason="TIME_WAIT can be turned off with an engine only", strict=True))
    served = [arena.run(bombs.LOOPBACK_SERVER).output for _ in range(3)]
    if not arena.is_docker:
        arena.renew()
    assert served == ["served\n"] * 3
    arena.assert_unaffected()


# ---- leaving something behind


@pytest.mark.parametrize("depth", [200, pytest.param(1500, marks=pytest.mark.slow)])
def test_vandalised_tree_is_as_it_was(arena: Arena, depth: int) -> None:
    result = arena.run(leftovers.VANDAL, str(depth))
    assert (result.exit_code, result.output) == (0, "")
    arena.assert_unaffected()


def test_no_place_outside_the_tree_keeps_what_is_written(arena: Arena) -> None:
    wrote = set(arena.run(leftovers.WRITE_OUTSIDE).output.splitlines())
    assert {path for path in wrote if path.startswith("/")} == {"/tmp", "/dev/shm"}
    find = arena.sandbox.run(Workspace(MappingTree({})), Command(("sh", "-c", leftovers.FIND_LEFT)))
    assert find.output == ""
    arena.assert_unaffected()


def test_poison_for_later_interpreters_has_no_effect(arena: Arena) -> None:
    assert arena.refusals(leftovers.POISON) == {}
    arena.assert_unaffected()


def test_poisoned_process_ends_with_its_run(arena: Arena) -> None:
    arena.run_test(leftovers.POISON_PROCESS)
    arena.assert_unaffected()
