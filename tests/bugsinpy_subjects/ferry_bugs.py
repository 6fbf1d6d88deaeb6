"""The bug directories of inkwell/ferry, which clean to one environment, and that of a subject that is nowhere."""

from __future__ import annotations

from tests.bugsinpy_subjects.ferry_history import HISTORY
from tests.bugsinpy_subjects.records import Subject, SubjectBug

SOURCES = ("ferry", ":(exclude)ferry/test")
UNITTEST = "pip install unittest\npip install idna"
NO_PATH = (
    'python_version="{python}"\npythonpath=""\nbuggy_commit_id="{buggy}"\n'
    'fixed_commit_id="{fixed}"\ntest_file="{tests}"'
)
BUILT = NO_PATH.replace('=""', '="ferry/build/lib/"')
WINDOWS = (
    'python_version="{python}"\r\nbuggy_commit_id="{buggy}"\r\nfixed_commit_id ="{fixed}"\r\n'
    'test_file="{tests}"\r\npython_version="{python}"\r\n'
)

BUGS = (
    SubjectBug(
        number=1,
        python="3.7.0",
        buggy="start",
        fixed="midnight",
        run="python -m unittest -q ferry.test.test_timetable.TimetableTest.test_waiting_over_midnight",
        test_file="ferry/test/test_timetable.py",
        patch_paths=SOURCES,
        setup=UNITTEST,
        info=NO_PATH,
        state="reproduced",
        failing=("ferry/test/test_timetable.py::TimetableTest::test_waiting_over_midnight",),
        irregular=("no requirements.txt", "unittest line", "pip install unittest", "empty pythonpath"),
    ),
    SubjectBug(
        number=2,
        python="3.7.3",
        buggy="midnight",
        fixed="fares",
        run="python -m unittest -q ferry.test.test_fares.FareTest\n",
        test_file="ferry/test/test_fares.py",
        patch_paths=SOURCES,
        requirements=b"",
        setup="pip install idna\n",
        state="reproduced",
        failing=("ferry/test/test_fares.py::FareTest::test_half_a_kilo_is_a_kilo",),
        passing=(
            "ferry/test/test_fares.py::FareTest::test_a_kilo",
            "ferry/test/test_fares.py::FareTest::test_nothing",
            "ferry/test/test_fares.py::FareTest::test_two_kilos",
        ),
        irregular=("empty requirements", "whole unittest class", "substring verdict"),
    ),
    SubjectBug(
        number=3,
        python="3.7.3",
        buggy="fares",
        fixed="route",
        run=(
            "python -m unittest -q ferry.test.test_route.RouteTest.test_legs "
            "ferry.test.test_address.AddressTest.test_quoted_at\r\n"
        ),
        test_file="ferry/test/test_route.py;ferry/test/test_address.py",
        patch_paths=SOURCES,
        requirements=b"",
        setup=UNITTEST,
        info=WINDOWS,
        state="reproduced",
        failing=(
            "ferry/test/test_route.py::RouteTest::test_legs",
            "ferry/test/test_address.py::AddressTest::test_quoted_at",
        ),
        irregular=(
            "empty requirements",
            "two unittest names on a line",
            "several test files",
            "CRLF",
            "blank before =",
            "repeated key in bug.info",
            "pip install unittest",
        ),
    ),
    SubjectBug(
        number=4,
        python="3.7.4",
        buggy="route",
        fixed="delay",
        run=(
            "py.test ferry/test/test_delay.py::DelayTest::test_late\n"
            "python3 -m pytest ferry/test/test_delay.py::DelayTest::test_in_time"
        ),
        test_file="ferry/test/test_delay.py",
        patch_paths=SOURCES,
        setup=UNITTEST + "\n",
        state="reproduced",
        failing=(
            "ferry/test/test_delay.py::DelayTest::test_late",
            "ferry/test/test_delay.py::DelayTest::test_in_time",
        ),
        irregular=("no requirements.txt", "collection error", "py.test", "python3 -m pytest", "pip install unittest"),
    ),
    SubjectBug(
        number=5,
        python="3.7.3",
        buggy="delay",
        fixed="capitals",
        run=(
            "pytest ferry/test/test_address.py::AddressTest::test_capitals;"
            "pytest ferry/test/test_address.py::AddressTest::test_one_capital; "
            "pytest ferry/test/test_address.py::AddressTest::test_plain"
        ),
        test_file="ferry/test/test_address.py",
        patch_paths=SOURCES,
        requirements=b"",
        setup="pip3 install idna",
        info=BUILT,
        state="reproduced",
        failing=(
            "ferry/test/test_address.py::AddressTest::test_capitals",
            "ferry/test/test_address.py::AddressTest::test_one_capital",
        ),
        passing=("ferry/test/test_address.py::AddressTest::test_plain",),
        irregular=("empty requirements", "joined lines", "build/lib on pythonpath", "package from setup.sh"),
    ),
    SubjectBug(
        number=6,
        python="3.7.3",
        buggy="capitals",
        fixed="back",
        run=(
            "tox ferry/test/test_route.py::RouteTest::test_back_leaves_it_alone "
            "ferry/test/test_route.py::RouteTest::test_back"
        ),
        test_file="ferry/test/test_route.py",
        patch_paths=(),
        requirements=b"",
        setup="python setup.py develop\npip install idna",
        state="reproduced",
        failing=("ferry/test/test_route.py::RouteTest::test_back_leaves_it_alone",),
        passing=("ferry/test/test_route.py::RouteTest::test_back",),
        irregular=("empty requirements", "tox", "patch touches tests"),
    ),
    SubjectBug(
        number=7,
        python="3.7.3",
        buggy="back",
        fixed="noon",
        run="pytest ferry/test/test_timetable.py::TimetableTest::test_morning",
        test_file="ferry/test/test_timetable.py",
        patch_paths=SOURCES,
        requirements=b"",
        setup="pip install idna",
        state="buggy_passes",
        passing=("ferry/test/test_timetable.py::TimetableTest::test_morning",),
        irregular=("empty requirements", "passes on buggy"),
    ),
    SubjectBug(
        number=8,
        python="3.7.3",
        buggy="noon",
        fixed="season",
        run="python -m unittest -q ferry.test.test_season.SeasonTest.test_fares_of_2019",
        test_file="ferry/test/test_season.py",
        patch_paths=SOURCES,
        requirements=b"",
        setup="pip install idna",
        state="fixed_fails",
        irregular=("empty requirements", "fails on fixed"),
    ),
)
FERRY = Subject(
    project="ferry",
    history=HISTORY,
    bugs=BUGS,
    info='github_url="https://github.com/inkwell/ferry"\nstatus="OK"\ncause="N.A."',
)
GHOST = Subject(
    project="ghost",
    history=HISTORY[:2],
    bugs=(
        SubjectBug(
            number=1,
            python="3.7.3",
            buggy="start",
            fixed="midnight",
            run="pytest ferry/test/test_timetable.py::TimetableTest::test_waiting_over_midnight",
            test_file="ferry/test/test_timetable.py",
            patch_paths=SOURCES,
            requirements=b"",
            setup="pip install idna",
            state="no_repository",
            irregular=("empty requirements", "no repository"),
        ),
    ),
    info='github_url="https://github.com/inkwell/ghost"\nstatus="OK"\ncause="N.A."\n',
)
