"""The history of inkwell/tally: the sources with all their bugs, and then one fix after the other."""

from __future__ import annotations

from collections.abc import Mapping

from tests.bugsinpy_subjects.records import Added, Change, Commit, Edit, Link, Script
from tests.bugsinpy_subjects.tally_sources import (
    COUNTS,
    DRAW,
    FAST,
    REMOTE,
    RENDER,
    SCRIPT,
    SETUP,
    TEST_COUNTED,
    TEST_DRAW,
    TEXT,
)


def _news(line: str) -> Added:
    return Added(f"- {line}\n")


START = Commit(
    "start",
    "Count words",
    {
        ".gitattributes": "/tests export-ignore\n",
        "README.rst": "tally\n=====\n\nCounts words.\n",
        "docs/README.rst": Link("../README.rst"),
        "CHANGES.rst": "Changes\n=======\n\n",
        "setup.py": SETUP,
        "bin/tally": Script(SCRIPT),
        "tally/__init__.py": "",
        "tally/counts.py": COUNTS,
        "tally/text.py": TEXT,
        "tally/render.py": RENDER,
        "tally/draw.py": DRAW,
        "tally/remote.py": REMOTE,
        "tests/helpers.py": 'import os\n\nDATA = os.path.join(os.path.dirname(__file__), "data")\n',
        "tests/data/größen.txt": "klein\ngroß\n",
        "tests/data/latest.txt": Link("größen.txt"),
        "tests/test_text.py": (
            "from tally.text import words\n\n\ndef test_words_are_lower_case():\n"
            '    assert words("One TWO") == ["one", "two"]\n'
        ),
        "tests/test_render.py": (
            "from tally.render import bars, marks\n\n\n"
            'def test_marks_come_in_bundles():\n    assert marks(7) == "||||/ ||"\n'
        ),
        "tests/test_counts.py": (
            "from tally.counts import Tally\n\n\n"
            'def test_a_thing_is_counted():\n    tally = Tally()\n    tally.add("a")\n    assert tally.total() == 1\n'
        ),
    },
)
MERGED_FIX: Mapping[str, Change] = {
    "tally/counts.py": Edit("both = Tally(self.counts)", "both = Tally(OrderedDict(self.counts))"),
    "tests/test_counts.py": Added(
        "\n\ndef test_merging_leaves_both_alone():\n    one, two = Tally(), Tally()\n"
        '    one.add("a")\n    two.add("a")\n    assert one.merged(two).total() == 2\n    assert one.total() == 1\n'
    ),
}
HISTORY = (
    START,
    Commit(
        "marks",
        "No space after whole bundles",
        {
            "tally/render.py": Edit(
                'return " ".join(bundles + ["|" * (number % 5)])',
                'rest = ["|" * (number % 5)] if number % 5 else []\n    return " ".join(bundles + rest)',
            ),
            "tests/test_render.py": Added(
                '\n\ndef test_five_marks_are_a_bundle():\n    assert marks(5) == "||||/"\n\n\n'
                'def test_no_marks_are_nothing():\n    assert marks(0) == ""\n\n\n'
                'def test_ten_marks_are_two_bundles():\n    assert marks(10) == "||||/ ||||/"\n'
            ),
            "CHANGES.rst": _news("marks: no space at the end"),
        },
    ),
    Commit(
        "words",
        "Words keep their apostrophes",
        {
            "tally/text.py": Edit('r"[^\\W\\d_]+"', 'r"[^\\W\\d_]+(?:\'[^\\W\\d_]+)*"'),
            "tests/test_text.py": Added(
                '\n\ndef test_words_keep_their_apostrophes():\n    assert words("Don\'t \'do\'") == ["don\'t", "do"]\n'
            ),
            "CHANGES.rst": _news("words: apostrophes"),
        },
    ),
    Commit("merged-branch", "Merging copies", MERGED_FIX),
    Commit("merged-before", "Say more", {"README.rst": Added("\nAnd other things.\n")}, parent="words"),
    Commit("merged", "Merge branch 'merging-copies'", MERGED_FIX, merges="merged-branch"),
    Commit(
        "lists",
        "Word lists may be links",
        {
            "tally/text.py": Edit(
                "sorted(name for name in names if not os.path.islink(os.path.join(directory, name)))", "sorted(names)"
            ),
            "tests/test_lists.py": (
                "import os\n\nfrom tally.text import word_lists\n\nfrom .helpers import DATA\n\n"
                'ROOT = os.path.join(DATA, "..", "..")\n\n\n'
                "def test_links_are_lists():\n"
                '    assert word_lists(DATA) == [u"gr\\u00f6\\u00dfen.txt", "latest.txt"]\n\n\n'
                "def test_a_link_is_followed():\n"
                '    assert os.path.islink(os.path.join(DATA, "latest.txt"))\n'
                '    assert open(os.path.join(DATA, "latest.txt"), "rb").read().startswith(b"klein")\n\n\n'
                'def test_the_script_can_be_run():\n    assert os.access(os.path.join(ROOT, "bin", "tally"), os.X_OK)\n'
            ),
        },
    ),
    Commit(
        "ledger",
        "Ledgers have comments",
        {
            "tally/text.py": Edit("for line in lines]", 'for line in lines if line.strip() and line[0] != "#"]'),
            "tests/test_ledger.py": (
                "import os\n\nfrom tally.text import read_ledger\n\n"
                'LEDGER = os.path.join(os.path.dirname(__file__), "data", "ledger.csv")\n\n\n'
                'def test_comments_are_left_out():\n    assert read_ledger(LEDGER) == [("pen", 2), ("ink", 1)]\n'
            ),
            "tests/data/ledger.csv": "# thing, times\npen, 2\n\nink, 1\n",
            "CHANGES.rst": _news("ledgers: comments and empty lines"),
        },
    ),
    Commit(
        "encoding",
        "Files are UTF-8 everywhere",
        {
            "tally/text.py": Edit(
                "with open(path) as lines:\n        return words",
                'with open(path, encoding="utf-8") as lines:\n        return words',
            ),
            "tests/test_encoding.py": (
                "from tally.text import read_words\n\n\n"
                'def test_files_are_utf_8(tmpdir):\n    path = tmpdir.join("words.txt")\n'
                '    path.write_binary(u"na\\u00efve".encode("utf-8"))\n'
                '    assert read_words(str(path)) == [u"na\\u00efve"]\n'
            ),
        },
    ),
    Commit(
        "bars-empty",
        "No bars for nothing",
        {
            "tally/render.py": Edit("    widest = max", '    if not pairs:\n        return ""\n    widest = max'),
            "tests/test_render.py": Added('\n\ndef test_nothing_has_no_bars():\n    assert bars([]) == ""\n'),
            "CHANGES.rst": _news("bars: of nothing"),
        },
    ),
    Commit(
        "bars-proposal",
        "Every count has a bar",
        {"tally/render.py": Edit('"#" * (width * times // widest)', '"#" * max(1, width * times // widest)')},
    ),
    Commit(
        "bars-before",
        "Columns",
        {
            "tally/render.py": Edit(
                '    widest = max(times for _, times in pairs)\n    return "\\n".join("%s %s" % (thing, '
                '"#" * (width * times // widest)) for thing, times in pairs)',
                "    most = max(times for _, times in pairs)\n    lines = []\n    for thing, times in pairs:\n"
                '        lines.append("%s %s" % (thing, "#" * (width * times // most)))\n    return "\\n".join(lines)',
            )
        },
        parent="bars-empty",
    ),
    Commit(
        "bars",
        "Every count has a bar (rebased)",
        {
            "tally/render.py": Edit('"#" * (width * times // most)', '"#" * max(1, width * times // most)'),
            "tests/test_render.py": Added(
                "\n\ndef test_every_count_has_a_bar():\n"
                '    assert bars([("a", 99), ("b", 1)], width=9) == "a #########\\nb #"\n'
            ),
        },
    ),
    Commit(
        "remote",
        "The web is bytes",
        {
            "tally/remote.py": Edit(".read())", '.read().decode("utf-8"))'),
            "tests/test_remote.py": (
                "from tally.remote import fetch_words\n\n\n"
                'def test_words_of_a_page():\n    assert "example" in fetch_words("http://example.com/")\n'
            ),
        },
    ),
    Commit(
        "draw",
        "An empty hat has no lot",
        {
            "tally/draw.py": Edit("    return names[os", "    if not names:\n        return None\n    return names[os"),
            "tests/test_draw.py": TEST_DRAW,
            "CHANGES.rst": _news("draw_lot: out of nothing"),
        },
    ),
    Commit(
        "counted",
        "Python 3 has views",
        {
            "tally/draw.py": Edit("draw_lot(tally.counts.keys())", "draw_lot(list(tally.counts))"),
            "tests/test_counted.py": TEST_COUNTED,
        },
    ),
    Commit(
        "share",
        "Nothing has no share",
        {
            "tally/counts.py": Edit(
                "return self.counts.get(thing, 0) / float(self.total())",
                "return self.counts.get(thing, 0) / float(self.total() or 1)",
            ),
            "tests/test_counts.py": Added("\n\ndef test_nothing_has_no_share():\n    assert Tally().share(1) == 0\n"),
        },
    ),
    Commit(
        "most-common",
        "The 0 most common are none",
        {
            "tally/counts.py": Edit("ranked[:limit] if limit else ranked", "ranked[:limit]"),
            "tests/test_common.py": (
                "import six\n\nfrom tally.counts import Tally\n\n\n"
                "def test_the_first_of_none_are_none():\n    tally = Tally()\n    tally.add(six.text_type(1))\n"
                "    assert tally.most_common(0) == []\n    assert len(tally.most_common()) == 1\n"
            ),
            "CHANGES.rst": _news("most_common(0)"),
        },
    ),
    Commit(
        "taken-back",
        "What was taken back is gone",
        {
            "tally/counts.py": Edit("self.counts.get(thing, 0) + times", "max(0, self.counts.get(thing, 0) + times)"),
            "tests/test_counts.py": Added(
                "\n\ndef test_no_count_is_negative():\n    tally = Tally()\n    tally.add(1, -1)\n"
                "    assert tally.total() == 0\n"
            ),
        },
    ),
    Commit(
        "fast-before",
        "A faster half",
        {
            "tally/_fast.c": FAST,
            "setup.py": SETUP.replace("import setup", "import Extension, setup").replace(
                "scripts=", 'ext_modules=[Extension("tally._fast", ["tally/_fast.c"])], scripts='
            ),
            "tally/fast.py": "from tally._fast import twice\n\n\ndef quadruple(number):\n    return twice(number)\n",
        },
    ),
    Commit(
        "fast",
        "Four times is twice twice",
        {
            "tally/fast.py": Edit("return twice(number)", "return twice(twice(number))"),
            "tests/test_fast.py": (
                "from tally.fast import quadruple\n\n\ndef test_four_times():\n    assert quadruple(2) == 8\n"
            ),
        },
    ),
)
