"""The ways a database comes to this release: the real `yoyo` program, and the shapes of the earlier system."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row, scalar_row
from yoyo import get_backend, read_migrations
from yoyo.backends import DatabaseBackend
from yoyo.migrations import MigrationList

ROOT = Path(__file__).parents[1]
MIGRATIONS = ROOT / "db" / "migrations"
LEGACY = Path(__file__).parent / "legacy"
IDS = sorted(path.stem for path in MIGRATIONS.glob("pycheckout_*") if not path.stem.endswith(".rollback"))
SQL_IDS = [name for name in IDS if (MIGRATIONS / f"{name}.sql").is_file()]


def yoyo_url(dsn: str, schema: str | None = None) -> str:
    """yoyo's name for a libpq URL."""
    url = dsn.replace("postgresql://", "postgresql+psycopg://", 1)
    return url if schema is None else f"{url}?schema={schema}"


def start_yoyo(
    *args: str, dsn: str, schema: str | None = None, migrations: Path = MIGRATIONS
) -> "subprocess.Popen[str]":
    """start_yoyo("apply", dsn=dsn): the program, running."""
    command, *rest = args
    program = [sys.executable, "-m", "yoyo", command, "--batch", "--no-config-file", *rest]
    return subprocess.Popen(
        [*program, "--database", yoyo_url(dsn, schema), str(migrations)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_yoyo(*args: str, dsn: str, seconds: float = 120, **options: Any) -> None:
    process = start_yoyo(*args, dsn=dsn, **options)
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output


@contextmanager
def yoyo_backend(dsn: str) -> Iterator[tuple[DatabaseBackend, MigrationList]]:
    """yoyo as a library: the backend, under its lock, and all migrations."""
    with get_backend(yoyo_url(dsn)) as backend, backend.lock():
        yield backend, read_migrations(str(MIGRATIONS))


def apply_until(dsn: str, last: str) -> None:
    """Apply what is pending up to the migration whose id contains `last`, without the hook."""
    with yoyo_backend(dsn) as (backend, migrations):
        [stop] = [migration.id for migration in migrations if last in migration.id]
        backend.apply_migrations_only(backend.to_apply(migrations.filter(lambda migration: migration.id <= stop)))


def roll_back_to(dsn: str, oldest: str) -> None:
    """Take back the migration `oldest` and what came after it."""
    with yoyo_backend(dsn) as (backend, migrations):
        backend.rollback_migrations(backend.to_rollback(migrations.filter(lambda migration: migration.id >= oldest)))


def load_legacy(dsn: str, shape: str) -> None:
    """Load the earlier system's database: "net", or "gross", which is a later one of it."""
    with psycopg.connect(dsn) as conn:
        for name in ["net", "gross"][: ["net", "gross"].index(shape) + 1]:
            conn.execute((LEGACY / f"{name}.sql").read_text())


def connect(dsn: str, **kwargs: Any) -> psycopg.Connection[Any]:
    """Autocommit, rows as dictionaries, and a bound on every statement."""
    defaults = {"autocommit": True, "row_factory": dict_row, "options": "-c statement_timeout=30s"}
    return psycopg.connect(dsn, **(defaults | kwargs))


def value(conn: psycopg.Connection[Any], query: str, *params: object) -> Any:
    """The one value of a query's one row."""
    with conn.cursor(row_factory=scalar_row) as cur:
        [found] = cur.execute(query, params).fetchall()
        return found


def dump(program: Callable[[str], str], dsn: str, *options: str) -> str:
    """What pg_dump says of the schema, but for yoyo's own tables, a random token, and a stamp of some minor releases.

    PostgreSQL 15.20, for one, gives every column an option `pg_attver` with a number that differs each time.
    """
    command = [program("pg_dump"), "--schema-only", "--exclude-table=*yoyo*", *options, "--dbname", dsn]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    noise = r"^\\(un)?restrict .*\n|^ALTER TABLE ONLY .* SET \(pg_attver=\d+\);\n"
    return re.sub(noise, "", text, flags=re.MULTILINE)


def without_labels(dump: str) -> str:
    """A dump without the enum labels that are ours, the ones with a dot: PostgreSQL cannot take one out again."""
    return re.sub(r",\n    '(checkout|vendor_order|order_line|payment)\.\w+'", "", dump)
