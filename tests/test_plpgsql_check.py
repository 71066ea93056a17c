"""plpgsql_check plans every statement of every function, those too that no test happens to reach."""

import pytest

from checks import rows

# Casts of an assignment ("hidden casting") cost nothing that a checkout would notice; volatility is another matter.
_FINDINGS = """
select routine.oid::regprocedure::text as routine, finding.lineno, finding.level, finding.message, finding.detail
  from pg_proc as routine
  join pg_language as language on language.oid = routine.prolang and language.lanname = 'plpgsql'
  left join (select distinct tgfoid, tgrelid from pg_trigger) as trigger on trigger.tgfoid = routine.oid
 cross join lateral plpgsql_check.plpgsql_check_function_tb(
         routine.oid, coalesce(trigger.tgrelid, 0), fatal_errors => false, other_warnings => true,
         extra_warnings => true, performance_warnings => true, compatibility_warnings => true,
         security_warnings => %s) as finding
 where routine.pronamespace = current_schema()::regnamespace
   and routine.proname in (select name from checkout_functions) is not distinct from %s
   and (finding.level <> 'performance' or finding.message like '%% is marked as %%')
 order by 1, 2
"""


# From what the catalog has of them, which their owner wrote.
MAKE_FUNCTIONS_ANEW = {("market_guard()", "security"), ("market_unguard()", "security")}


@pytest.mark.parametrize("deployed", [True, False], ids=["functions", "migrations"])
def test_functions_are_clean(plpgsql_check, deployed):
    """The functions of db/functions/, and those of the migrations: triggers (with their tables) and helpers."""
    with plpgsql_check.transaction():
        # The helpers share a temporary table. They also put names into SQL as the ledger holds them, quoted already: so
        # only the deployed functions are searched for injection.
        plpgsql_check.execute("select checkout_migration_open()")
        # checkout_erase asks first whether the earlier system left it
        plpgsql_check.execute("create table checkout_groups_archive (id uuid, attributed_ad_click_id uuid)")
        # the gate of a move, which stands on no table while no market moves
        plpgsql_check.execute(
            "create trigger market_gate before insert on cart_records for each statement"
            " execute function market_gate('1')"
        )
        findings = rows(plpgsql_check, _FINDINGS, deployed, deployed)

    found = {(finding["routine"], finding["level"]): finding for finding in findings}
    assert {key: finding for key, finding in found.items() if key not in MAKE_FUNCTIONS_ANEW} == {}


@pytest.mark.parametrize(
    ("declaration", "body", "level"),
    [
        ("", "return (select no_such_column from cart_records);", "error"),
        ("declare v_forgotten text;", "return 1;", "warning"),
        ("", "execute 'select ' || name; return 1;", "security"),
        ("", "return (select count(*) from cart_records);", "performance"),
    ],
    ids=["missing column", "unused variable", "injection", "wrong volatility"],
)
def test_check_finds_what_it_is_for(plpgsql_check, declaration, body, level):
    """So that an empty list means clean, not blind."""
    plpgsql_check.execute(
        f"create function flawed(name text) returns bigint language plpgsql as $$ {declaration} begin {body} end $$"
    )

    found = {finding["level"] for finding in rows(plpgsql_check, _FINDINGS, True, False)}

    assert level in found
