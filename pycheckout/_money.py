"""Minor units as people write them."""

from __future__ import annotations

# Digits of the minor unit, where they are not two: ISO 4217, list one ("Current currency & funds code list") of
# 2026-01-01, as its maintenance agency SIX publishes it:
# https://www.six-group.com/en/products-services/financial-information/data-standards.html
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
    digits = _DIGITS.get(currency.upper(), 2)  # a host's own quote may be in small letters
    major, minor = divmod(abs(cents), 10**digits)
    return f"{'-' if cents < 0 else ''}{major:,}" + (f".{minor:0{digits}}" if digits else "")


def money(cents: int, currency: str = "USD") -> str:
    return f"{amount(cents, currency)} {currency}"
