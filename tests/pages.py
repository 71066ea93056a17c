"""The blocks of code that a page shows, and the sections that they stand in."""

import re


def section(page: str, heading: str) -> str:
    """What stands below a heading of the second level."""
    [found] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    return found


def steps(text: str) -> list[tuple[str, str, str]]:
    """Of each block what stands before it, its language and its code."""
    return re.findall(r"(.*?)^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def blocks(text: str, language: str | None = None) -> list[str]:
    """The code of each block, or of those of a language."""
    return [code for _, found, code in steps(text) if language in (None, found)]


def block(text: str, language: str, containing: str = "") -> str:
    """The code of the one block of a language that contains a text."""
    [code] = [code for code in blocks(text, language) if containing in code]
    return code
