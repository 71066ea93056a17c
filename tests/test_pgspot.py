"""pgspot, as it judges extension scripts, on every function as it is deployed: it has nothing to say.

The files in db/functions say `set search_path from current`, which is no path yet: read alone they would be judged as
if they had none. So pgspot gets the definitions that PostgreSQL gives back, each with the path that it runs under.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from checks import rows

# What pgspot cannot know. It trusts a schema that the script creates, and so does a deployment trust the one that it
# finds, since it refuses while PUBLIC may create anything there (test_deploy.py). It deploys under this path.
PREAMBLE = "create schema public;\nset search_path = public, pg_temp;\n"

# The parser behind pgspot has no catalogue: for it a variable of a row type has no fields that one could assign to.
ROW_VARIABLE = r"^(  v_\w+) \w+s(?= :=|;)"

# Inner steps have no path of their own and run under their entry point's. So here each of them gets that path.
# (Nobody else reaches one: test_privileges.py, and the last test below.)
PIN_THE_STEPS = """
do $$
declare
  v_step regprocedure;
begin
  for v_step in
    select oid from pg_proc
     where pronamespace = current_schema()::regnamespace and not prosecdef
       and not exists (select from unnest(proconfig) as setting where starts_with(setting, 'search_path='))
  loop
    execute format('alter function %s set search_path = public, pg_temp', v_step);
  end loop;
end
$$
"""


@pytest.fixture
def pgspot(db: psycopg.Connection, tmp_path: Path) -> Callable[[], tuple[int, str]]:
    """pgspot(): its exit code and its findings on all functions of the schema, one file a function."""

    def pgspot() -> tuple[int, str]:
        db.execute(PIN_THE_STEPS)
        functions = rows(
            db,
            """
            select proname::text as name, pg_get_functiondef(oid) as definition
              from pg_proc where pronamespace = current_schema()::regnamespace
            """,
        )
        for function in functions:
            file = tmp_path / f"{function['name']}.sql"
            definition = re.sub(ROW_VARIABLE, r"\1 record", function["definition"], flags=re.M)
            file.write_text(f"{PREAMBLE}{definition};\n", encoding="utf-8")
        files = sorted(file.name for file in tmp_path.glob("*.sql"))
        assert len(files) == len(functions) > 50
        run = subprocess.run(
            [sys.executable, "-m", "pgspot", *files],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert run.stderr == ""
        return run.returncode, run.stdout

    return pgspot


def test_pgspot_finds_nothing(pgspot):
    code, findings = pgspot()

    assert code == 0, findings
    assert "TOTAL: Errors: 0 Warnings: 0 Unknown: 0" in findings


@pytest.mark.parametrize(
    ("path", "finding"),
    [
        ("reset search_path", "PS003"),
        ("set search_path = public", "PS004"),
        ("set search_path = pg_temp, public", "PS004"),
        ("set search_path = public, elsewhere, pg_temp", "PS004"),
        ("set search_path = 'public, pg_temp'", "PS004"),
    ],
)
def test_pgspot_would_find_a_path_that_lets_others_in(db, pgspot, path, finding):
    """And, under such a path, each unqualified name (PS016, PS017)."""
    db.execute(sql.SQL("alter function checkout_version() {}").format(sql.SQL(path)))

    code, findings = pgspot()

    assert code == 1
    assert {finding, "PS016", "PS017"} <= {line[:5] for line in findings.splitlines()}, findings


def test_nothing_but_a_function_with_a_path_reaches_a_function(db):
    """A view, a default or an index that called a step would run it under its user's path. Triggers alone depend on
    functions, and on such as pin theirs."""
    reached = rows(
        db,
        """
        select distinct depends.classid::regclass::text as by, function.proname::text as name,
               coalesce(array_to_string(function.proconfig, ', '), '') as settings
          from pg_depend as depends
          join pg_proc as function on function.oid = depends.refobjid
         where depends.refclassid = 'pg_proc'::regclass and function.pronamespace = current_schema()::regnamespace
        """,
    )

    assert {row["by"] for row in reached} == {"pg_trigger"}
    assert {row["settings"] for row in reached} == {"search_path=public, pg_temp"}
    assert len(reached) >= 3
