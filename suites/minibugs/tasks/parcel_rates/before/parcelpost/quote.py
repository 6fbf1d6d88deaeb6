"""What a customer pays for one parcel."""

from parcelpost.tariff import STANDARD

ZONE_SURCHARGE = {"home": 0, "near": 350, "far": 1200}


class Parcel:
    """A parcel on the scales."""

    def __init__(self, grams, zone="home", insured_cents=0):
        if zone not in ZONE_SURCHARGE:
            raise ValueError("unknown zone: {}".format(zone))
        self.grams = grams
        self.zone = zone
        self.insured_cents = insured_cents


def insurance_fee(insured_cents):
    """One cent for every begun 100 cents of insured value."""
    return -(-insured_cents // 100)


def quote(parcel, tariff=STANDARD):
    """Return the full price of `parcel` in cents."""
    postage = tariff.price(parcel.grams)
    return postage + ZONE_SURCHARGE[parcel.zone] + insurance_fee(parcel.insured_cents)
