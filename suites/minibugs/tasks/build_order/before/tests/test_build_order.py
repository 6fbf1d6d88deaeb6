import pytest

from buildgraph import CycleError, UnknownTarget, load

PROGRAM = """
app: lib ui     # the program
ui: lib icons
lib: config
config:
icons:
"""


def test_dependencies_come_first():
    assert load(PROGRAM).order() == ["config", "icons", "lib", "ui", "app"]


def test_stages_are_as_early_as_possible():
    assert load(PROGRAM).stages() == {"config": 0, "icons": 0, "lib": 1, "ui": 2, "app": 3}


def test_empty_graph():
    assert load("# nothing").stages() == {}


def test_dependencies_of_a_target_add_up():
    graph = load("a: b\na: c\nb:\nc:")
    assert graph.needs("a") == ["b", "c"]
    assert graph.order() == ["b", "c", "a"]


def test_unknown_dependencies_are_reported():
    with pytest.raises(UnknownTarget):
        load("a: b").order()
    with pytest.raises(UnknownTarget):
        load("a:").needs("b")


def test_a_target_cannot_need_itself():
    with pytest.raises(CycleError):
        load("a: b a\nb:")


def test_text_without_a_colon_is_refused():
    with pytest.raises(ValueError):
        load("a b")


def test_a_circle_is_reported():
    cases = {"a: b\nb: a": ["a", "b"], "x: y\ny: z\nz: x": ["x", "y", "z"]}
    for text, names in cases.items():
        with pytest.raises(CycleError) as caught:
            load(text).order()
        assert caught.value.targets == names


def test_a_circle_is_reported_with_all_that_wait_for_it():
    with pytest.raises(CycleError) as caught:
        load(PROGRAM + "config: tool\ntool: lib").stages()
    assert caught.value.targets == ["app", "config", "lib", "tool", "ui"]


def test_a_circle_apart_from_the_rest_is_reported():
    with pytest.raises(CycleError) as caught:
        load(PROGRAM + "q: p\np: q").stages()
    assert caught.value.targets == ["p", "q"]
