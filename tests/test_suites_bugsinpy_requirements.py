"""requirements.txt and setup.sh, as people's machines wrote them: cleaned, or rejected with the line."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.python_spec import PythonSpec
from suites.bugsinpy.bug import Rejected
from suites.bugsinpy.requirements import environment, own_names, read_requirements, read_setup

OWN = own_names("thing", "some-one/The_Thing")


def spec(requirements: str, setup: str = "") -> tuple[PythonSpec, list[str]]:
    found, irregular = read_requirements(requirements.encode(), OWN)
    asked = read_setup(setup, OWN)
    made, more = environment("3.7.4", found, asked, "some-one/The_Thing", 1)
    return made, [*irregular, *asked.irregular, *more]


def lines(data: bytes) -> tuple[list[str], list[str]]:
    found, irregular = read_requirements(data, OWN)
    return [each.line for each in found], irregular


@pytest.mark.parametrize(
    ("mark", "encoding", "irregular"),
    [
        (b"", "utf-8", []),
        (codecs.BOM_UTF8, "utf-8", ["requirements.txt: byte order mark"]),
        (codecs.BOM_UTF16_LE, "utf-16-le", ["requirements.txt: UTF-16"]),
        (codecs.BOM_UTF16_BE, "utf-16-be", ["requirements.txt: UTF-16"]),
    ],
)
def test_encodings_are_told_by_their_mark(mark: bytes, encoding: str, irregular: list[str]) -> None:
    assert lines(mark + "six==1.15.0\n".encode(encoding)) == (["six==1.15.0"], irregular)


@pytest.mark.parametrize("data", [b"", b" \r\n", codecs.BOM_UTF16_LE])
def test_an_empty_file_asks_for_nothing(data: bytes) -> None:
    assert lines(data)[0] == []
    assert "requirements.txt: empty" in lines(data)[1]


@pytest.mark.parametrize("data", [b"six==1\0", "six==1\n".encode("utf-16-le"), b"\xff\xfea", b"\x80\x81"])
def test_what_is_no_text_is_rejected(data: bytes) -> None:
    with pytest.raises(Rejected, match=r"requirements\.txt is not text"):
        read_requirements(data, OWN)


def test_spelling_and_order_make_no_difference() -> None:
    one, _ = spec("Keras_Applications==1.0.8\nruamel.yaml==0.16\n# six\n\natomicwrites==1.4.0")
    other, _ = spec("atomicwrites == 1.4.0  # why\nruamel-YAML==0.16\nkeras-applications==1.0.8")
    assert one == other
    assert one.requirements == ("atomicwrites==1.4.0", "keras-applications==1.0.8", "ruamel-yaml==0.16")
    assert spec("plac<1.0,>=0.9")[0] == spec("plac >=0.9, <1.0")[0]


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("-e git+https://github.com/some-one/thing.git@0123#egg=The_Thing", "the project itself, by address"),
        ("the-thing @ file:///home/me/thing", "the project itself, by address"),
        ("-e .[dev]", "the project itself, by address"),
        ("Thing==1.0", "the project itself, by version"),
        ("pkg-resources==0.0.0", "pkg-resources"),
        ("pkg_resources==0.0.0", "pkg-resources"),
        ("pywin32-ctypes==0.2.0", "Windows only"),
        ("setuptools==47.1", "pip, setuptools or wheel"),
    ],
)
def test_what_has_no_place_in_an_environment_is_dropped_and_named(line: str, phrase: str) -> None:
    assert lines(f"six==1\n{line}\n".encode()) == (["six==1"], [f"requirements: {phrase}"])


@pytest.mark.parametrize(
    "line",
    [
        "-e git+https://github.com/other/other@0123#egg=other",
        "--index-url https://evil.example/simple",
        "-r more.txt",
        "https://evil.example/x.whl",
        "other @ file:///x",
        "../other",
        "six==1 --hash=sha256:00",
        "six==1; rm -rf $(x)",
        "six=1",
    ],
)
def test_options_addresses_and_paths_are_rejected_with_the_line(line: str) -> None:
    with pytest.raises(Rejected) as caught:
        lines(line.encode())
    assert repr(line[:80]) in str(caught.value)


def test_of_a_package_named_twice_the_last_counts() -> None:
    assert lines(b"six==1\nSix==2") == (["six==2"], ["requirements: a package twice, the last counts"])
    assert lines(b"six==1\nSix==1") == (["six==1"], [])


def test_a_package_has_a_line_for_each_marker() -> None:
    made, irregular = spec('six==1; python_version < "3.7"\nsix==2; python_version >= "3.7"', "pip install six")
    assert made.requirements == ('six==1; python_version < "3.7"', 'six==2; python_version >= "3.7"')
    assert (made.extras, irregular) == ((), [])


def test_a_file_of_ranges_is_installed_with_what_its_packages_need() -> None:
    made, irregular = spec("requests>=2.13,<3\nthinc==7.4.0\n", "pip install requests attrs==19.1.0")
    assert made == PythonSpec("3.7", (), ("attrs==19.1.0", "requests<3,>=2.13", "thinc==7.4.0"))
    assert irregular == ["requirements: ranges, not pins"]


@pytest.mark.parametrize(
    "setup",
    [
        "pip install nose ",
        "pip3 install --upgrade nose",
        "python -m pip install nose",
        "python3 -mpip install nose\r\n",
        "pip install unittest; pip install nose",
        "python setup.py develop\npip install -e .[test]\npip install .[a,b]\npip install nose",
        "python -mpip install -ve .\npip install nose",
        "pip install -r requirements.txt\npip install nose",
    ],
)
def test_setup_installs_what_it_names(setup: str) -> None:
    assert spec("six==1", setup)[0] == PythonSpec("3.7", ("six==1",), ("nose",))


def test_setup_adds_nothing_that_is_pinned_already() -> None:
    made, irregular = spec("six==1\npytest==5.4.3", "pip install Six\npip install pytest==3.10.1")
    assert made == PythonSpec("3.7", ("pytest==5.4.3", "six==1"))
    assert irregular == ["setup.sh: another version than requirements.txt has, which counts"]


def test_setup_touches_files_and_compiles() -> None:
    setup = read_setup("touch tests/__init__.py\npython setup.py build_ext --inplace -j 0\n", OWN)
    assert (setup.touched, setup.compiles, setup.irregular) == (["tests/__init__.py"], True, [])


@pytest.mark.parametrize(
    "line",
    [
        "curl https://evil.example",
        "touch ../x",
        "touch /etc/x",
        "pip install git+https://evil.example/x",
        "pip install -e ../other",
        "pip install ./other",
        "pip install --index-url https://evil.example nose",
        "pip install -r other.txt",
        "python setup.py upload",
        "python setup.py build_ext",
        "python -c 1",
        "pip download nose",
        "pip install 'nose",
        "pip install nose && rm -rf x",
    ],
)
def test_setup_that_is_not_known_is_rejected(line: str) -> None:
    with pytest.raises(Rejected, match=r"^setup\.sh "):
        read_setup(line, OWN)


@given(st.one_of(st.binary(), st.text().map(str.encode), st.text().map(lambda text: text.encode("utf-16", "replace"))))
def test_any_bytes_are_cleaned_or_rejected(data: bytes) -> None:
    try:
        found, _ = read_requirements(data, OWN)
    except Rejected:
        return
    assert all(each.line[0].isalnum() and "\n" not in each.line for each in found)


@given(st.text(alphabet="pip nstal-erouch.y=1;'\"\\\n#&$"))
def test_any_setup_is_read_or_rejected(text: str) -> None:
    try:
        read_setup(text, OWN)
    except Rejected as error:
        assert "\n" not in str(error)
