import pytest

from scribepad import Editor


def test_changes_are_undone_in_reverse_order():
    editor = Editor("bread")
    editor.insert(5, " and butter")
    editor.delete(0, 2)
    assert editor.content == "ead and butter"
    assert editor.undo() and editor.content == "bread and butter"
    assert editor.undo() and editor.content == "bread"
    assert not editor.undo()


def test_undone_changes_can_be_made_again():
    editor = Editor("abc")
    editor.insert(3, "d")
    editor.delete(0, 1)
    editor.undo()
    editor.undo()
    assert editor.redo() and editor.content == "abcd"
    assert editor.redo() and editor.content == "bcd"
    assert not editor.redo()


def test_a_new_change_ends_redo():
    editor = Editor("abc")
    editor.insert(3, "d")
    editor.undo()
    editor.insert(0, "x")
    assert not editor.redo()
    assert editor.content == "xabc"


def test_a_deletion_ends_redo_as_well():
    editor = Editor("abc")
    for text in "def":
        editor.insert(len(editor.content), text)
    editor.undo()
    editor.undo()
    editor.delete(0, 3)
    assert not editor.redo()
    assert editor.content == "d"
    assert editor.undo() and editor.content == "abcd"
    assert editor.redo() and editor.content == "d"


def test_redo_itself_keeps_what_can_be_redone():
    editor = Editor()
    for text in "abc":
        editor.insert(0, text)
    for _ in range(3):
        editor.undo()
    assert [editor.redo() for _ in range(4)] == [True, True, True, False]
    assert editor.content == "cba"


def test_opened_text_has_nothing_to_undo():
    editor = Editor("first")
    editor.insert(0, "my ")
    editor.open("second")
    assert not editor.undo()
    assert editor.content == "second"


def test_opened_text_has_nothing_to_redo():
    editor = Editor("first")
    editor.insert(0, "my ")
    editor.undo()
    editor.open("second")
    assert not editor.redo()
    assert editor.content == "second"


def test_opened_text_has_a_history_of_its_own():
    editor = Editor("first")
    editor.insert(0, "my ")
    editor.open("second")
    editor.insert(0, "the ")
    assert editor.undo() and editor.content == "second"
    assert not editor.undo()
    assert editor.redo() and editor.content == "the second"


def test_depth_limits_undo():
    editor = Editor(depth=2)
    for text in "abcd":
        editor.insert(len(editor.content), text)
    assert [editor.undo() for _ in range(3)] == [True, True, False]
    assert editor.content == "ab"


def test_positions_outside_the_text_are_refused():
    editor = Editor("abc")
    for position in (-1, 4):
        with pytest.raises(IndexError):
            editor.insert(position, "x")
    assert not editor.undo()
