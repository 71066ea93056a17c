"""What MkDocs needs to know about the pages of docs/, which are also read in the repository.

They link to files and folders that are no pages: functions, migrations, examples, schemas. Each of those that is there
becomes a page of the site that shows it, so that the site needs no other host. A link to what is not there stays as it
is, and `mkdocs build --strict` fails on it.

Diagrams are drawn by Mermaid in the reader's browser. It comes from the package mermaidx, and with the site.

The header shows the version, from db/deploy.py, and the repository, once pyproject.toml names one.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"(^ *(`{3,})[^`\n]*\n.*?^ *\2 *$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")
# [errors.md](errors.md), also with an anchor
_NAMED = re.compile(r"\[(?:\w+/)*([\w-]+\.md)\]\(((?:[\w.]+/)*\1)(?=[#)])")
_LANGUAGES = {".sql": "sql", ".py": "python", ".json": "json", ".yaml": "yaml", ".toml": "toml"}
_CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)
_CODE = re.compile(r"(?<=<code>)[^<]+(?=</code>)")
# A generated page to the file or folder of the repository that it shows.
_shown: dict[str, str] = {}


def page_of(path: str) -> str:
    """The page of the site for a file or a folder of the repository; a page of docs/ is its own."""
    if (ROOT / path / "README.md").exists():
        path = f"{path}/README.md"
    if path.startswith("docs/") and path.endswith(".md"):
        return path.removeprefix("docs/")
    return f"source/{path}.md"


def links(markdown: str) -> list[str]:
    """What a page links to, without anchors and other hosts."""
    return [target for text in _FENCE.split(markdown)[::3] for target, _ in _LINK.findall(text)]


def with_links_of_the_site(markdown: str, *, path: str, titles: Mapping[str, str]) -> str:
    """The text of the repository's file `path`, as a page of the site.

    A link that is named after its file, as `[errors.md](errors.md)`, gets the title of that page.
    """
    folder = posixpath.dirname(page_of(path))

    def rewrite(link: re.Match[str]) -> str:
        target = _in_repository(path, link[1])
        if target is None:
            return link[0]
        page = page_of(target)
        return f"]({posixpath.relpath(page, folder or '.')}{link[2] or ''})"

    def name(link: re.Match[str]) -> str:
        target = _in_repository(path, link[2])
        return f"[{titles.get(page_of(target or ''), link[1])}]({link[2]}"

    # In turn: text, fence, its backticks, text, ...
    parts = _FENCE.split(markdown)
    return "".join(
        _LINK.sub(rewrite, _NAMED.sub(name, part)) if n % 3 == 0 else part for n, part in enumerate(parts) if n % 3 != 2
    )


def _in_repository(path: str, target: str) -> str | None:
    """What `target` in the file `path` leads to, or None where that is an image, a page's own link, or not there."""
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    there = not found.startswith("..") and (ROOT / found).exists()
    return None if not there or found.endswith(".svg") else found


def _shows(path: str) -> str:
    """The Markdown of a page that shows a file or a folder."""
    file = ROOT / path
    head = f"---\ntitle: {path}\nsearch:\n  exclude: true\n---\n\n"
    if file.is_dir():
        inside = sorted(it for it in file.iterdir() if not it.name.startswith((".", "__")))
        return head + f"# `{path}`\n\n" + "".join(f"- [{it.name}]({file.name}/{it.name})\n" for it in inside)
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return head + text
    return head + f"# `{path}`\n\n````{_LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n````\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    from pycheckout._release import release

    config.site_name = f"{config.site_name} {release()}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if repository := project.get("urls", {}).get("Repository"):
        config.repo_url, config.repo_name = repository, posixpath.basename(repository)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    _shown.clear()
    todo = [(f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    while todo:
        path, text = todo.pop()
        for link in links(text):
            target = _in_repository(path, link)
            if target is None or files.get_file_from_path(page_of(target)):
                continue
            page = File.generated(config, page_of(target), content=_shows(target))
            files.append(page)
            _shown[page.src_uri] = target
            todo.append((target, page.content_string))

    spec = find_spec("mermaidx")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("The site needs the extra docs: pip install 'pycheckout[docs]'")
    mermaid = Path(spec.submodule_search_locations[0]) / "assets" / "mermaid.js"
    files.append(File.generated(config, "assets/mermaid.js", abs_src_path=str(mermaid)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation", "toc"]
    path = _shown.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return with_links_of_the_site(markdown, path=path, titles=_titles(config.nav))


def _titles(nav: list[Any] | None) -> dict[str, str]:
    """The titles of the pages in the navigation."""
    found: dict[str, str] = {}
    for entry in nav or []:
        for title, it in entry.items():
            found |= _titles(it) if isinstance(it, list) else {it: title}
    return found


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    # A diagram that is wider than the page is scrolled, not shrunk until nobody can read it.
    def diagram(found: re.Match[str]) -> str:
        few = 1 < found[0].count("participant ") < 5
        return f'<div class="diagram{" few" if few else ""}">{found[0]}</div>'

    html = re.sub(r'<pre class="mermaid">.*?</pre>', diagram, html, flags=re.DOTALL)

    # Long names in tables break between their words.
    def breaks(code: re.Match[str]) -> str:
        return re.sub(r"(::|[_./])(?=\w)", r"\1<wbr>", code[0])

    return _CELL.sub(lambda cell: _CODE.sub(breaks, cell[0]), html)
