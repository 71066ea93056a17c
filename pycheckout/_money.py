"""Minor units as people write them."""

from __future__ import annotations

# ISO 4217: minor units a major one, where that is not two digits.
_DIGITS = {
    currency: digits
    for digits, currencies in {
        0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
        3: "BHD IQD JOD KWD LYD OMR TND",
        4: "CLF UYW",
    }.items()
    for currency in currencies.split()
}


def amount(cents: int, currency: str) -> str:
    """`cents` in the currency's major unit, in integers throughout."""
    digits = _DIGITS.get(currency, 2)
    major, minor = divmod(abs(cents), 10**digits)
    return f"{'-' if cents < 0 else ''}{major:,}" + (f".{minor:0{digits}}" if digits else "")


def money(cents: int, currency: str = "USD") -> str:
    return f"{amount(cents, currency)} {currency}"
