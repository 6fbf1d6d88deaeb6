import pytest

from parcelpost import STANDARD, Parcel, Tariff, TooHeavy, quote


def test_weights_inside_the_bands():
    prices = [STANDARD.price(grams) for grams in (1, 499, 501, 4999, 9000)]
    assert prices == [290, 290, 450, 690, 1090]


def test_a_limit_belongs_to_the_band_it_closes():
    assert [STANDARD.price(grams) for grams in (500, 2000, 5000)] == [290, 450, 690]


def test_the_maximum_weight_is_accepted():
    assert STANDARD.price(10000) == 1090
    assert Tariff([(100, 1)]).price(100) == 1


def test_one_gram_more_is_the_next_band():
    assert [STANDARD.price(grams) for grams in (501, 2001, 5001)] == [450, 690, 1090]


def test_above_the_maximum_is_refused():
    for grams in (10001, 20000):
        with pytest.raises(TooHeavy):
            STANDARD.price(grams)


def test_weights_must_be_positive():
    for grams in (0, -5):
        with pytest.raises(ValueError):
            STANDARD.price(grams)


def test_bands_may_come_in_any_order():
    tariff = Tariff([(30, 3), (10, 1), (20, 2)])
    assert [tariff.price(grams) for grams in (5, 10, 15, 20, 25, 30)] == [1, 1, 2, 2, 3, 3]


def test_quote_adds_zone_and_insurance():
    assert quote(Parcel(300)) == 290
    assert quote(Parcel(300, "far", 1001)) == 290 + 1200 + 11
    assert quote(Parcel(2000, "near")) == 450 + 350
