"""Tariffs: ascending weight bands, each with a price in cents."""

import bisect


class TooHeavy(ValueError):
    """The parcel is heavier than the last band of the tariff."""


class Tariff:
    """Maps a weight to a price; `bands` is a list of (limit in grams, price in cents)."""

    def __init__(self, bands):
        self.limits = [limit for limit, _ in sorted(bands)]
        self.prices = [price for _, price in sorted(bands)]

    @property
    def max_grams(self):
        return self.limits[-1]

    def price(self, grams):
        """Return the price of the lightest band that the parcel fits in."""
        if grams <= 0:
            raise ValueError("a parcel has a positive weight")
        index = bisect.bisect_right(self.limits, grams)
        if index == len(self.limits):
            raise TooHeavy("{} g, but at most {} g".format(grams, self.max_grams))
        return self.prices[index]


STANDARD = Tariff([(500, 290), (2000, 450), (5000, 690), (10000, 1090)])
