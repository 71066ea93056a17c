"""The blocks of code that a page shows, and the sections that they stand in."""

import re

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def section(page: str, heading: str) -> str:
    """What stands below a heading of the second level."""
    [found] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    return found


def blocks(text: str, language: str | None = None) -> list[str]:
    """The code of each block, or of those of a language."""
    return [code for found, code in _BLOCK.findall(text) if language in (None, found)]


def block(text: str, language: str, containing: str = "") -> str:
    """The code of the one block of a language that contains a text."""
    [code] = [code for code in blocks(text, language) if containing in code]
    return code


def steps(text: str) -> list[tuple[str, str, str]]:
    """Of each block what stands before it, its language and its code."""
    found, end = [], 0
    for block in _BLOCK.finditer(text):
        found.append((text[end : block.start()], block[1], block[2]))
        end = block.end()
    return found
