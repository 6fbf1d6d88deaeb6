"""The bug directories of inkwell/tally. Their requirement files clean to two environments."""

from __future__ import annotations

from tests.bugsinpy_subjects.records import Subject, SubjectBug
from tests.bugsinpy_subjects.tally_history import HISTORY

PINS = """\
atomicwrites==1.4.0
attrs==19.3.0
importlib-metadata==1.6.0
more-itertools==8.3.0
pluggy==0.13.1
py==1.8.1
pytest==3.10.1
six==1.14.0
zipp==3.1.0
"""
PLAIN = PINS.encode()
UTF_16 = b"\xff\xfe" + PINS.replace("\n", "\r\n").encode("utf-16-le")
ODD = PINS.replace(
    "py==1.8.1\n",
    "-e git+https://github.com/inkwell/tally@0123456789abcdef0123456789abcdef01234567#egg=tally\n"
    "pkg-resources==0.0.0\npy==1.8.1\npywin32==227\n",
)
ODD_UTF_16 = b"\xff\xfe" + ODD.replace("\n", "\r\n").encode("utf-16-le")
RELAXED = b"attrs==19.3.0\nrequirements-txt==1.0.0\nsix==99.0.0\n"
"""One name that no registry has (PyPI refuses to register it), one version that nobody made."""

SPACED = (
    'python_version="{python}"\nbuggy_commit_id="{buggy}"\nfixed_commit_id ="{fixed}"\n'
    'test_file="{tests}"\npython_version="{python}"\n'
)
BUILT = 'pythonpath="tally/build/lib/"\n'
RUN_EVERYBODY = tuple(f"tests/test_draw.py::test_everybody_wins[{number}]" for number in range(64))
RUN_EVERYTHING = tuple(f"tests/test_counted.py::test_everything_is_drawn[{number}]" for number in range(64))

BUGS = (
    SubjectBug(
        number=1,
        python="3.6.9",
        buggy="marks",
        fixed="words",
        run="pytest tests/test_text.py::test_words_keep_their_apostrophes\n",
        test_file="tests/test_text.py",
        patch_paths=("tally",),
        requirements=ODD_UTF_16,
        state="reproduced",
        failing=("tests/test_text.py::test_words_keep_their_apostrophes",),
        irregular=("UTF-16 requirements", "pins the project itself", "pkg-resources pin", "Windows-only package"),
    ),
    SubjectBug(
        number=2,
        python="3.6.9",
        buggy="start",
        fixed="marks",
        run=(
            "pytest tests/test_render.py::test_five_marks_are_a_bundle\n"
            "pytest tests/test_render.py::test_no_marks_are_nothing  tests/test_render.py::test_marks_come_in_bundles\n"
            "\npython3 -m pytest tests/test_render.py::test_ten_marks_are_two_bundles"
        ),
        test_file="tests/test_render.py",
        patch_paths=(),
        requirements=ODD.encode(),
        state="reproduced",
        failing=(
            "tests/test_render.py::test_five_marks_are_a_bundle",
            "tests/test_render.py::test_ten_marks_are_two_bundles",
        ),
        passing=(
            "tests/test_render.py::test_no_marks_are_nothing",
            "tests/test_render.py::test_marks_come_in_bundles",
        ),
        irregular=("patch touches tests", "several lines in run_test.sh", "python3 -m pytest"),
    ),
    SubjectBug(
        number=3,
        python="3.6.9",
        buggy="merged-before",
        fixed="merged",
        run="pytest -q -s tests/test_counts.py::test_merging_leaves_both_alone",
        test_file="tests/test_counts.py",
        patch_paths=("tally",),
        requirements=UTF_16,
        info=SPACED,
        state="reproduced",
        failing=("tests/test_counts.py::test_merging_leaves_both_alone",),
        irregular=("UTF-16 requirements", "merge commit", "blank before =", "repeated key in bug.info"),
    ),
    SubjectBug(
        number=4,
        python="3.6.9",
        buggy="bars-before",
        fixed="bars",
        run="py.test tests/test_render.py::test_every_count_has_a_bar",
        test_file="tests/test_render.py",
        patch_paths=("tally",),
        patch_of=("bars-empty", "bars-proposal"),
        requirements=PLAIN,
        state="reproduced",
        failing=("tests/test_render.py::test_every_count_has_a_bar",),
        irregular=("patch does not reverse", "py.test"),
    ),
    SubjectBug(
        number=5,
        python="3.6.9",
        buggy="merged",
        fixed="bars-empty",
        abbreviated=True,
        run="pytest tests/test_render.py::test_nothing_has_no_bars",
        test_file="tests/test_render.py",
        patch_paths=("tally",),
        requirements=UTF_16,
        state="reproduced",
        failing=("tests/test_render.py::test_nothing_has_no_bars",),
        irregular=("UTF-16 requirements", "many commits apart", "abbreviated commit"),
    ),
    SubjectBug(
        number=6,
        python="3.6.9",
        buggy="lists",
        fixed="ledger",
        run="pytest tests/test_ledger.py::test_comments_are_left_out",
        test_file="tests/test_ledger.py",
        patch_paths=("tally",),
        requirements=PLAIN,
        state="reproduced",
        failing=("tests/test_ledger.py::test_comments_are_left_out",),
        irregular=("fixture not listed",),
    ),
    SubjectBug(
        number=7,
        python="3.6.9",
        buggy="ledger",
        fixed="encoding",
        run="pytest -q -s tests/test_encoding.py::test_files_are_utf_8",
        test_file="tests/test_encoding.py",
        patch_paths=("tally",),
        requirements=PLAIN,
        setup="python setup.py install\n",
        state="needs_latin1",
        passing=("tests/test_encoding.py::test_files_are_utf_8",),
        irregular=("needs latin-1", "setup.py install"),
    ),
    SubjectBug(
        number=8,
        python="3.6.9",
        buggy="bars",
        fixed="remote",
        run="pytest tests/test_remote.py::test_words_of_a_page",
        test_file="tests/test_remote.py",
        patch_paths=("tally",),
        requirements=PLAIN,
        state="needs_network",
        irregular=("needs network",),
    ),
    SubjectBug(
        number=9,
        python="3.6.9",
        buggy="remote",
        fixed="draw",
        run="pytest tests/test_draw.py",
        test_file="tests/test_draw.py",
        patch_paths=("tally",),
        requirements=PLAIN,
        state="reproduced",
        failing=("tests/test_draw.py::test_an_empty_hat_has_no_lot",),
        passing=("tests/test_draw.py::test_a_lot_is_one_of_the_names",),
        flaky=RUN_EVERYBODY,
        irregular=("flaky among steady",),
    ),
    SubjectBug(
        number=10,
        python="3.6.9",
        buggy="draw",
        fixed="counted",
        run="pytest tests/test_counted.py::test_everything_is_drawn",
        test_file="tests/test_counted.py",
        patch_paths=("tally",),
        requirements=PLAIN,
        state="flaky",
        flaky=RUN_EVERYTHING,
        irregular=("failing test is flaky",),
    ),
    SubjectBug(
        number=11,
        python="3.6.9",
        buggy="words",
        fixed="words",
        run="pytest tests/test_text.py::test_words_are_lower_case",
        test_file="tests/test_text.py",
        patch_paths=("tally",),
        requirements=PLAIN,
        state="unreadable",
        irregular=("empty patch",),
    ),
    SubjectBug(
        number=12,
        python="3.6.9",
        buggy="fast-before",
        fixed="fast",
        run="pytest tests/test_fast.py::test_four_times",
        test_file="tests/test_fast.py",
        patch_paths=("tally",),
        requirements=PLAIN,
        setup="python setup.py build_ext --inplace -j 0",
        state="compiles",
        irregular=("setup.py build_ext",),
    ),
    SubjectBug(
        number=13,
        python="2.7.16",
        buggy="counted",
        fixed="share",
        run="pytest tests/test_counts.py::test_nothing_has_no_share",
        test_file="tests/test_counts.py",
        patch_paths=("tally",),
        requirements=PLAIN,
        state="unreadable",
        irregular=("Python 2.7",),
    ),
    SubjectBug(
        number=14,
        python="3.8.3",
        buggy="share",
        fixed="most-common",
        run="pytest tests/test_common.py::test_the_first_of_none_are_none",
        test_file="tests/test_common.py",
        patch_paths=("tally",),
        requirements=RELAXED,
        state="reproduced",
        failing=("tests/test_common.py::test_the_first_of_none_are_none",),
        irregular=("pin that nobody has", "package that does not exist"),
    ),
    SubjectBug(
        number=15,
        python="3.6.9",
        buggy="merged",
        fixed="lists",
        run="pytest tests/test_lists.py",
        test_file="tests/test_lists.py",
        patch_paths=("tally",),
        requirements=ODD_UTF_16,
        setup="touch tests/__init__.py",
        info=BUILT + SPACED.replace(" =", "="),
        state="reproduced",
        failing=("tests/test_lists.py::test_links_are_lists",),
        passing=(
            "tests/test_lists.py::test_a_link_is_followed",
            "tests/test_lists.py::test_the_script_can_be_run",
        ),
        irregular=(
            "UTF-16 requirements",
            "touch tests/__init__.py",
            "build/lib on pythonpath",
            "repeated key in bug.info",
            "export-ignore hides the tests",
            "symbolic link",
            "executable file",
            "non-ASCII file name",
        ),
    ),
    SubjectBug(
        number=16,
        python="3.99.1",
        buggy="most-common",
        fixed="taken-back",
        run="pytest tests/test_counts.py::test_no_count_is_negative",
        test_file="tests/test_counts.py",
        patch_paths=("tally",),
        requirements=PLAIN,
        state="no_environment",
        irregular=("Python of which there is no image",),
    ),
)
TALLY = Subject(
    project="tally",
    history=HISTORY,
    bugs=BUGS,
    info='github_url="https://github.com/inkwell/tally/"\nstatus="OK" \ncause="N.A."\nPYTHONPATH = "tally"\n',
)
