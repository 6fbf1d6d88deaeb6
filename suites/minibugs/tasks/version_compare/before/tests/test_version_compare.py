import pytest

from verorder import InvalidVersion, Version, latest, update_for


def in_order(*texts):
    """Tell whether every version is smaller than all that follow."""
    versions = [Version(text) for text in texts]
    pairs = [(low, high) for at, low in enumerate(versions) for high in versions[at + 1 :]]
    return all(low < high and high > low and low != high for low, high in pairs)


def test_numbers_are_compared_by_value():
    assert in_order("0.9.12", "1.0.0", "1.0.2", "1.0.10", "1.2.0", "1.10.0", "10.0.0")


def test_equal_versions():
    assert Version("v1.2.3") == Version(" 1.2.3 ")
    assert Version("1.2.3-rc.1") == Version("1.2.3-rc.01")
    assert len({Version("1.0.0"), Version("v1.0.0"), Version("1.0.1")}) == 2


def test_prereleases_of_one_version():
    assert in_order("1.0.0-1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta")
    assert in_order("2.1.0-rc.2", "2.1.0-rc.10")


def test_a_prerelease_comes_before_its_release():
    assert in_order("2.0.0-rc.1", "2.0.0")
    assert in_order("0.1.0-1", "0.1.0-alpha.2", "0.1.0-zeta", "0.1.0")
    assert not Version("2.0.0") <= Version("2.0.0-rc.1")


def test_a_prerelease_comes_after_older_releases():
    assert in_order("1.9.9", "2.0.0-alpha", "2.0.0-rc.1")
    assert in_order("1.9.9", "2.0.0-alpha", "2.0.0", "2.0.1-alpha", "2.0.1", "2.1.0-1", "2.1.0")


def test_latest_leaves_prereleases_out():
    assert latest(["1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1"]) == "1.10.0"
    assert latest(["2.0.0-rc.1"]) is None


def test_latest_with_prereleases():
    assert latest(["2.0.0-rc.1", "1.0.0"], prereleases=True) == "2.0.0-rc.1"
    assert latest(["2.0.0-rc.1", "2.0.0", "2.0.0-beta"], prereleases=True) == "2.0.0"
    assert latest(["3.1.0-a", "3.1.0", "3.0.9"], prereleases=True) == "3.1.0"


def test_no_update_from_a_release_to_its_candidates():
    assert update_for("2.0.0", ["2.0.0-rc.1", "1.9.0"]) is None
    assert update_for("0.3.0", ["0.3.0-9", "0.3.0-beta"]) is None


def test_update_from_a_candidate_to_the_release():
    assert update_for("2.0.0-rc.1", ["2.0.0", "2.0.0-rc.1"]) == "2.0.0"
    assert update_for("1.5.0-beta", ["1.5.0-alpha", "1.5.0", "1.5.0-rc.3"]) == "1.5.0"


def test_update_to_a_newer_release():
    assert update_for("1.0.0", ["1.0.1", "1.0.0"]) == "1.0.1"
    assert update_for("1.0.0", []) is None


def test_bad_versions_are_refused():
    for text in ("1.0", "1.0.0-", "1.0.0-a..b", "one", "1.0.0+7", ""):
        with pytest.raises(InvalidVersion):
            Version(text)
