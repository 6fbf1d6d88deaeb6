import pytest

from layercfg import LayeredSettings, TypedSettings


def make_settings():
    settings = LayeredSettings()
    settings.push("builtin", {"retries": 3, "color": True, "prefix": "app", "port": 80})
    settings.push("file", {"retries": 0, "color": False, "prefix": "", "port": 8080})
    return settings


def test_the_highest_layer_wins():
    settings = make_settings().push("cli", {"port": 9000})
    assert settings.get("port") == 9000
    assert settings.origin("port") == "cli"


def test_a_missing_key_gives_the_default():
    assert make_settings().get("speed") is None
    assert make_settings().get("speed", 7) == 7
    assert make_settings().origin("speed") is None


def test_falsy_values_of_a_higher_layer_win():
    settings = make_settings()
    assert settings.get("retries") == 0
    assert settings.get("color") is False
    assert settings.get("prefix") == ""


def test_falsy_values_win_over_the_default():
    settings = LayeredSettings().push("file", {"retries": 0, "names": [], "note": None})
    assert settings.get("retries", 5) == 0
    assert settings.get("names", ["x"]) == []
    assert settings.get("note", "none") is None


def test_value_and_origin_agree():
    settings = make_settings()
    layers = {"file": {"retries": 0, "color": False, "prefix": "", "port": 8080}}
    for key in settings.keys():
        assert settings.get(key, "default") == layers[settings.origin(key)][key]


def test_typed_getters_convert_text():
    typed = TypedSettings({"port": "8080", "debug": "Yes", "quiet": "off", "limit": "0"})
    assert typed.integer("port") == 8080
    assert typed.flag("debug") is True
    assert typed.flag("quiet", default=True) is False
    assert typed.integer("limit", default=9) == 0


def test_typed_getters_keep_falsy_values():
    typed = TypedSettings({"retries": 0, "color": False, "prefix": ""})
    assert typed.integer("retries", default=5) == 0
    assert typed.flag("color", default=True) is False
    assert typed.text("prefix", default="app") == ""


def test_typed_getters_use_the_default_for_missing_keys_and_none():
    typed = TypedSettings({"retries": None})
    assert typed.integer("retries", default=5) == 5
    assert typed.integer("speed", default=6) == 6
    assert typed.text("name") == ""


def test_typed_getters_over_layers():
    typed = TypedSettings(make_settings())
    assert typed.integer("retries", default=5) == 0
    assert typed.flag("color", default=True) is False
    assert typed.text("prefix", default="x") == ""


def test_words_that_are_no_flag_are_refused():
    with pytest.raises(ValueError):
        TypedSettings({"debug": "maybe"}).flag("debug")
