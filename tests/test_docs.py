"""The pages of docs/: what they show is run, what is generated is current, what they link to is there."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from importlib.metadata import metadata
from io import StringIO
from pathlib import Path

import mermaidx
import pytest
import yaml
from pages import block, blocks, steps

from docs_site import hooks, reference

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def read(page):
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.fixture
def command(tmp_path):
    """A folder with the command pycheckout, as an installation has it."""
    program = tmp_path / "pycheckout"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom pycheckout.cli import main\nsys.argv[0] = 'pycheckout'\nmain()\n"
    )
    program.chmod(0o755)
    return tmp_path


def test_the_tutorial_is_run_from_its_first_block_to_its_last(empty_database, psql, command, monkeypatch):
    dsn = empty_database()
    names = {}
    said = None

    def shell(code):
        if code.startswith("pip install"):
            [extras] = re.findall(r"^pip install 'pycheckout\[([\w,]+)\]'$", code, re.MULTILINE)
            assert set(extras.split(",")) <= set(metadata("pycheckout").get_all("Provides-Extra"))
            return ""
        if found := re.fullmatch(r"export (\w+)=postgresql://\S+\n", code):
            monkeypatch.setenv(found[1], dsn)
            return ""
        env = os.environ | {"PATH": f"{command}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-ec", code], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(keepends=True)[-1]

    def python(code):
        with redirect_stdout(StringIO()) as printed:
            exec(code, names)
        return printed.getvalue()

    def sql(code):
        done = psql("--set", "ON_ERROR_STOP=1", dsn=dsn, stdin=code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run = {"sh": shell, "python": python, "sql": sql}
    try:
        for _, language, code in steps(read("tutorial.md")):
            if language == "text":
                assert said == code
            else:
                # psql ends lines with spaces, which a page does not.
                said = "\n".join(line.rstrip() for line in run[language](code).splitlines()).strip("\n") + "\n"
    finally:
        if "conn" in names:
            names["conn"].close()


@pytest.fixture
def quoted(psql):
    """The cart of docs/quotes.md, with stock on the shelf."""
    quote = block(read("quotes.md"), "sql")
    shelf = "select inventory_set((item ->> 'product_id')::uuid, 10) from jsonb_array_elements(%s) as item;"
    items = "(select jsonb_agg(jsonb_build_object('product_id', product_id)) from cart_items)"
    done = psql("--set", "ON_ERROR_STOP=1", stdin=quote + shelf % items)
    assert done.returncode == 0, done.stderr


def test_the_home_page_checks_out_from_python_and_from_psql(quoted, psql, pool, capsys):
    [python, sql] = blocks(read("index.md"))
    buyer, cart = re.findall(r"'([\d-]{36})'", sql)

    exec(python, {"pool": pool, "buyer_store_id": buyer, "cart_id": cart})
    assert capsys.readouterr().out == "created_pending 2150\n"

    done = psql("--tuples-only", "--no-align", stdin=sql)
    assert done.returncode == 0, done.stderr
    assert '"replayed" : true' in done.stdout, "the two blocks are the same request"


def test_the_generated_pages_say_what_the_database_and_the_docstrings_say(db):
    stale = [name for name, text in reference.pages(db).items() if read(name) != text]
    assert stale == [], "run make docs-reference"


DIAGRAMS = [
    (page.name, diagram)
    for page in sorted(DOCS.glob("*.md"))
    for _, language, diagram in steps(read(page.name))
    if language == "mermaid"
]


@pytest.mark.parametrize("diagram", [diagram for _, diagram in DIAGRAMS], ids=[page for page, _ in DIAGRAMS])
def test_every_diagram_can_be_drawn(diagram):
    mermaidx.render(diagram).svg()


# The site


def test_the_site_has_all_that_is_linked_and_a_link_to_what_is_not_there_fails_its_build(tmp_path):
    """As `make docs` builds it, which takes pages without warnings alone: here each warning is of a line of ours."""
    docs, site = tmp_path / "docs", tmp_path / "site"
    shutil.copytree(DOCS, docs)
    with (docs / "limits.md").open("a", encoding="utf-8") as page:
        page.write("\n[gone](../db/functions/gone.sql), [lost](lost.md), [off](errors.md#no-such-heading)\n")
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("docs_dir: docs\n", f"docs_dir: {docs}\n")

    done = subprocess.run(
        # With `--quiet`, MkDocs would count no warning.
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "-", "--site-dir", site],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        input=config,
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 1
    lost = [r"\.\./db/functions/gone\.sql", r"lost\.md", "#no-such-heading"]
    warnings = re.findall(r"^(?:WARNING|ERROR)\b.*", done.stderr, re.MULTILINE)
    assert len(warnings) == len(lost), done.stderr
    assert all(re.search(rf"'limits\.md'.*{link}", told) for told, link in zip(warnings, lost, strict=True)), warnings

    concepts = (site / "concepts" / "index.html").read_text(encoding="utf-8")
    assert 'href="../source/db/functions/checkout/checkout_execute.sql/"' in concepts
    function = site / "source" / "db" / "functions" / "checkout" / "checkout_execute.sql" / "index.html"
    assert "v_cart" in function.read_text()
    assert concepts.index('src="../assets/mermaid.js"') < concepts.index("/javascripts/bundle.")
    loaded = [
        url
        for page in site.rglob("*.html")
        for url in re.findall(r"<(?:script|img|link)\b[^>]*?(?:src|href)=\"?([^\">\s]+)", page.read_text("utf-8"))
        if url.startswith(("http:", "https:", "//"))
    ]
    assert loaded == []

    # The version of the header is that of the functions.
    home = (site / "index.html").read_text(encoding="utf-8")
    header = re.search(r"<header.*?</header>", home, re.DOTALL)[0]
    release = re.search(r'^RELEASE = "(.+)"$', (ROOT / "db" / "deploy.py").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert f"pycheckout {release}" in header
    assert (site / "llms.txt").read_bytes() == (DOCS / "llms.txt").read_bytes()


def test_links_are_rewritten_outside_code_alone_and_named_after_their_page():
    links = "[x](../db/deploy.py) [errors.md](errors.md#a) [e](events) [f](../examples)\n"
    code = "```text\n[x](../db/deploy.py)\n```\n[y](../gone)\n"

    assert hooks.with_links_of_the_site(links + code, path="docs/limits.md", titles={"errors.md": "Errors"}) == (
        "[x](source/db/deploy.py.md) [Errors](errors.md#a) [e](events/README.md) [f](source/examples.md)\n"
        "```text\n[x](../db/deploy.py)\n```\n[y](../gone)\n"
    )


# For readers that are programs


def pages_of(nav):
    for entry in nav:
        for page in entry.values():
            yield from pages_of(page) if isinstance(page, list) else (page,)


def test_llms_txt_has_its_parts_in_order_and_names_every_page():
    """llmstxt.org: a title, a summary, what else there is to know, then lists of links under headings."""
    text = read("llms.txt")
    title, summary, details, *sections = re.split(r"\n{2,}", text.strip())
    assert re.fullmatch(r"# .+", title)
    assert re.fullmatch(r"(> .+\n?)+", summary)
    assert "#" not in details
    for heading, links in zip(sections[::2], sections[1::2], strict=True):
        assert re.fullmatch(r"## .+", heading)
        assert re.fullmatch(r"(- \[[^\]]+\]\([^)]+\): .+\n?)+", links)

    named = re.findall(r"\]\(([^)]+)\)", text)
    assert [name for name in named if not (DOCS / name).is_file()] == []
    assert len(named) == len(set(named))
    # The format of the fences needs the package's own loader, and is nothing to this.
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("!!python/name:", "")
    assert {*pages_of(yaml.safe_load(config)["nav"])} <= {*named}
    assert {page.name for page in DOCS.glob("*.md")} <= {*named}, "a page that the site's navigation has not"


def test_a_codes_link_leads_to_what_the_page_on_errors_says_of_it():
    """In both references."""
    anchors = set(re.findall(r'<a id="(\w+)"></a>\*\*[^*]*`\1`', read("errors.md")))
    linked = {
        name: re.findall(r"\(errors\.md(?:#(\w*))?\)", read(name))
        for name in ("reference-sql.md", "reference-python.md")
    }
    assert {*linked["reference-sql.md"]} - {""} <= anchors
    assert {*linked["reference-python.md"]} - {""} == anchors
    assert linked["reference-sql.md"].count("") == 1, "the page itself is linked once, at the top"
