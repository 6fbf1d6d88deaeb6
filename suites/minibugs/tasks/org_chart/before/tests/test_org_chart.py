import pytest

from orgtree import NoSuchPerson, Person, find, head_count, outline, payroll


def make_chart():
    return Person("ada", 900).add(
        Person("bea", 500).add(
            Person("cyd", 300).add(Person("dan", 200), Person("eve", 210)),
            Person("fay", 310),
        ),
        Person("gus", 520).add(Person("hal", 320)),
    )


def test_one_person_alone():
    top = Person("ada", 900)
    assert head_count(top) == 1
    assert outline(top) == ["ada"]


def test_direct_reports_are_counted():
    top = Person("ada", 900).add(Person("bea", 10), Person("gus", 20))
    assert head_count(top) == 3
    assert payroll(top) == 930


def test_all_levels_are_counted():
    assert head_count(make_chart()) == 8
    assert payroll(make_chart()) == 3260


def test_a_branch_is_counted_from_its_own_top():
    top = make_chart()
    bea, gus = top.reports
    assert head_count(bea) == 5
    assert head_count(gus) == 2
    assert payroll(bea) == 1520


def test_everybody_can_be_found():
    top = make_chart()
    for name, level in (("ada", 0), ("gus", 1), ("fay", 2), ("hal", 2), ("dan", 3), ("eve", 3)):
        person = find(top, name)
        assert (person.name, person.level) == (name, level)


def test_unknown_names_are_reported():
    with pytest.raises(NoSuchPerson):
        find(make_chart(), "zoe")


def test_outline_lists_managers_before_their_reports():
    expected = ["ada", "  bea", "    cyd", "      dan", "      eve", "    fay", "  gus", "    hal"]
    assert outline(make_chart()) == expected


def test_a_long_chain_of_command():
    top = current = Person("p0")
    for number in range(1, 30):
        report = Person("p{}".format(number))
        current.add(report)
        current = report
    assert head_count(top) == 30
    assert find(top, "p29").level == 29


def test_nobody_has_two_managers():
    person = Person("ada")
    Person("bea").add(person)
    with pytest.raises(ValueError):
        Person("gus").add(person)
