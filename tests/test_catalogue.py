"""What holds for every function and table, so that a new one cannot forget it."""

import re
from pathlib import Path

import pytest
from roles import ENTRY_POINTS, FOR_THE_OWNER

from checks import row, rows, values

pytest_plugins = ["shared"]

DB = Path(__file__).parents[1] / "db"
FILES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((DB / "functions").rglob("*.sql"))}
MIGRATIONS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((DB / "migrations").glob("*.sql")))

TRIGGERS = {"cart_part_refuse_change", "cart_refuse_change", "cart_refuse_taken_id", "cart_refuse_truncate"}
TRIGGERS |= {"market_gate"}  # which stands on no table but while a market moves
# It writes nothing but the row that it was called for, with the rights of whoever writes that.
STAMPS = {"cart_permit_take_transaction"}
# They watch checkout_groups, where somebody writes to it.
ON_AN_EXISTING_DATABASE = {"checkout_group_note_change", "checkout_groups_catch_up", "vendor_order_take_cart"}
SIGNING_KEYS = {"ad_signing_key_put", "ad_signing_key_retire"}
GRANTING = {"checkout_apply_grants", "checkout_bound_lock_waits", "checkout_revoke"}
# They change what the schema consists of, while its market moves.
MOVING = {"market_drop_gate", "market_freeze", "market_guard", "market_set_gate", "market_unguard"}

# The call graph says so, but the arguments of the call rule it out.
UNREACHABLE = {("inventory_restock", "OC010")}


@pytest.fixture(scope="module")
def functions(shared_db):
    """Every function of the schema, by name."""
    found = rows(
        shared_db,
        """
        select proname::text as name, lanname::text as language,
               prosecdef as definer, proconfig as settings, prosrc as body,
               obj_description(routine.oid, 'pg_proc') as comment,
               exists (select from aclexplode(coalesce(proacl, acldefault('f', proowner))) where grantee = 0) as public
          from pg_proc as routine join pg_language as language on language.oid = prolang
         where pronamespace = current_schema()::regnamespace
        """,
    )
    by_name = {function["name"]: function for function in found}
    assert len(by_name) == len(found), "one signature of each name"
    return by_name


def code(sql: str) -> str:
    """SQL without its comments and the contents of its texts."""
    return re.sub(
        r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", lambda found: "''" if found[0][0] == "'" else "", sql, flags=re.S
    )


def created(sql: str) -> set[str]:
    return set(re.findall(r"create\s+(?:or\s+replace\s+)?function\s+([\w.\"]+)", sql))


def body(name: str) -> str:
    """What a function file says between its dollar quotes."""
    return "\n".join(re.findall(r"\$(\w*)\$(.*?)\$\1\$", FILES[name], flags=re.S)[0][1:])


# Functions


@pytest.mark.parametrize("name", FILES)
def test_file_defines_the_function_of_its_name_and_nothing_else(name):
    assert created(FILES[name]) == {name}
    assert re.findall(r"revoke execute on function (\w+)\([^)]*\) from public;", FILES[name]) == [name]
    assert re.findall(r"comment on function (\w+)\(", FILES[name]) == [name]
    assert FILES[name].startswith(f"-- {name}: "), "begins by saying what it is"


def test_a_room_shows_its_entry_points_and_its_steps_apart():
    """Whoever lists a room sees what may be called, and in steps/ what that consists of."""
    rooms: dict[str, dict[str, set[str]]] = {}
    for path in (DB / "functions").rglob("*.sql"):
        room, *steps = path.parent.relative_to(DB / "functions").parts
        assert steps in ([], ["steps"]), path
        rooms.setdefault(room, {}).setdefault("steps" if steps else "entry points", set()).add(path.stem)

    assert set(rooms) == {"ads", "admin", "cart", "checkout", "inventory", "market", "orders", "outbox", "payments"}
    shown = {name for room in rooms.values() for name in room["entry points"]}
    assert shown == ENTRY_POINTS | FOR_THE_OWNER - {"checkout_apply_grants"}  # a step of each deployment
    assert rooms["checkout"]["entry points"] == {"checkout_execute", "checkout_result"}


def test_every_function_of_the_schema_has_its_file_or_its_migration(functions):
    assert set(functions) == set(FILES) | created(MIGRATIONS) - ON_AN_EXISTING_DATABASE
    assert not set(FILES) & created(MIGRATIONS)


def test_lists_of_entry_points_are_complete(functions):
    assert {name for name, function in functions.items() if function["definer"]} == ENTRY_POINTS | TRIGGERS


def test_entry_points_and_triggers_run_with_a_pinned_search_path(functions, shared_db):
    schema = row(shared_db, "select current_schema()")["current_schema"]
    for name in ENTRY_POINTS | TRIGGERS | STAMPS | FOR_THE_OWNER:
        assert f"search_path={schema}, pg_temp" in (functions[name]["settings"] or []), name


def test_calls_in_large_tables_have_their_plans_forced(functions):
    """A call on an order, a quote or the outbox reads by an index, whatever the statistics say: a new one, and its name
    here. Its settings are those of the calls beside it."""
    forced = {name: " ".join(each["settings"] or []) for name, each in functions.items()}
    forced = {name: settings for name, settings in forced.items() if "enable_" in settings}
    reading = {"cart_get", "checkout_result", "inventory_get", "order_changes_list", "order_get", "orders_list"}
    reading |= {"checkout_metrics"}
    changing = {"order_adjust", "order_line_fulfil", "order_line_release", "order_line_return", "payment_record"}
    changing |= {"vendor_order_cancel", "vendor_order_decide", "vendor_order_extend", "vendor_orders_expire"}
    assert forced.keys() == reading | changing | {"checkout_execute", "order_lock_due", "outbox_claim"}


def test_a_plan_that_is_forced_is_not_compiled(functions):
    """A scan or a sort that is there although it is switched off looks so dear that PostgreSQL 15 to 17 compile it."""
    for name, each in functions.items():
        settings = each["settings"] or []
        assert "jit=off" in settings or not any(setting.startswith("enable_") for setting in settings), name


def test_steps_that_entry_points_share_are_planned_alike(functions):
    """A session plans a statement once, under the settings of whoever comes first."""
    assert functions["checkout_execute"]["settings"] == functions["checkout_result"]["settings"]
    assert set(functions["checkout_result"]["settings"]) <= set(functions["cart_get"]["settings"])
    assert functions["order_get"]["settings"] == functions["orders_list"]["settings"]


def test_no_sql_function_is_planned_anew_in_every_checkout(functions, db, add_cart, checkout_sql):
    """Before PostgreSQL 18, that is what happens to one that the planner cannot fold into its caller's statement.

    The statistics count every function that is called, and none that is folded.
    """
    db.execute("set track_functions = 'all'")
    cart = add_cart(vendors=2, lines=2)
    checkout_sql(db, cart)
    checkout_sql(db, cart, key="k2")  # a replay
    db.execute("select pg_stat_force_next_flush()")

    called = set(values(db, "select funcname::text from pg_stat_user_functions where schemaname = current_schema()"))
    assert {"checkout_execute", "checkout_convert", "checkout_build_result"} <= called
    assert {name for name in called if functions[name]["language"] == "sql"} == set()


def test_inner_steps_run_under_the_path_and_rights_of_their_entry_point(functions):
    for name in set(FILES) - ENTRY_POINTS - FOR_THE_OWNER - TRIGGERS:
        assert not functions[name]["definer"], name
        assert not [value for value in functions[name]["settings"] or [] if value.startswith("search_path=")], name


def test_public_may_call_nothing(functions):
    assert [name for name, function in functions.items() if function["public"]] == []


def test_comments_say_something(functions):
    for name in set(FILES) | TRIGGERS:
        comment = functions[name]["comment"] or ""
        assert len(comment.split()) >= 5 and comment.endswith("."), f"{name}: {comment!r}"
    comments = [function["comment"] for function in functions.values() if function["comment"]]
    assert len(comments) == len(set(comments))


def reachable(name: str, seen: set[str]) -> set[str]:
    """The OC codes that a function, or what it calls, raises."""
    seen.add(name)
    codes = set(re.findall(r"errcode = '(OC\d{3})'", body(name)))
    for called in set(re.findall(r"\b(\w+)\(", code(body(name)))) & set(FILES) - seen:
        codes |= reachable(called, seen)
    return codes


@pytest.mark.parametrize("name", sorted(ENTRY_POINTS | FOR_THE_OWNER - {"checkout_apply_grants"}))
def test_comment_names_exactly_the_errors_that_can_come(functions, name):
    raises = {found for found in reachable(name, set()) if (name, found) not in UNREACHABLE}

    assert set(re.findall(r"OC\d{3}", functions[name]["comment"])) == raises


def test_no_extension_is_needed(functions, shared_db):
    assert {function["language"] for function in functions.values()} == {"sql", "plpgsql"}
    assert values(shared_db, "select extname::text from pg_extension") == ["plpgsql"]
    assert not re.search(r"create\s+extension", code(MIGRATIONS) + "".join(map(code, FILES.values())), re.I)


# Tables


def test_every_table_has_a_primary_key_that_cannot_run_out(shared_db):
    """An int serial ends at two billion rows."""
    tables = rows(
        shared_db,
        """
        select class.relname::text as name,
               array(select format_type(attribute.atttypid, null)
                       from pg_index as index
                       join pg_attribute as attribute
                         on attribute.attrelid = class.oid and attribute.attnum = any (index.indkey)
                      where index.indrelid = class.oid and index.indisprimary) as key
          from pg_class as class
         where class.relkind in ('r', 'p') and class.relnamespace = current_schema()::regnamespace
           and class.relname !~ '^_?yoyo_'
        """,
    )

    assert len(tables) > 10
    for table in tables:
        assert set(table["key"]) & {"uuid", "bigint", "text"}, table
    assert values(shared_db, "select sequencename::text from pg_sequences where data_type <> 'bigint'::regtype") == []


def test_no_foreign_key_leaves_the_schema(shared_db):
    """So that a market can move to another server, or a schema to another node, as a whole."""
    found = rows(
        shared_db, "select connamespace, t.relnamespace from pg_constraint join pg_class t on t.oid = confrelid"
    )
    assert found
    assert all(each["connamespace"] == each["relnamespace"] for each in found)


def test_no_index_of_a_text_depends_on_a_library_of_the_system(shared_db):
    """An upgrade of libc or ICU may change the order of a collation, and breaks every index that is in that order."""
    collations = rows(
        shared_db,
        """
        select index.indexrelid::regclass::text as index, used.id::regcollation::text as collation
          from pg_index as index
          join pg_class as class on class.oid = index.indrelid
         cross join unnest(index.indcollation::oid[]) as used (id)
         where class.relnamespace = current_schema()::regnamespace and class.relname !~ '^_?yoyo_'
           and used.id <> 0
        """,
    )
    assert len(collations) >= 5
    assert {(each["index"], each["collation"]) for each in collations if each["collation"] != '"C"'} == set()


def test_on_conflict_names_its_target(functions):
    """Else a unique index of the host, which says that a row is one too many, would pass for a row that is there."""
    found = {
        (name, target.strip())
        for name in FILES
        for target in re.findall(r"on\s+conflict\b(.*?)\bdo\b", code(functions[name]["body"]), re.S)
    }
    assert len(found) >= 4
    assert {name for name, target in found if not target} == set()


@pytest.fixture(scope="module")
def described(shared_db):
    """Every table, view, type and column of the schema but yoyo's: its name, its comment, and what a column is."""
    return rows(
        shared_db,
        """
        with relations as (
          select oid, relname::text as name, relkind as kind from pg_class
           where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p', 'f', 'v', 'm', 'c')
             and relname !~ '^_?yoyo_'
        )
        select name, obj_description(oid, 'pg_class') as comment, false as in_table, false as nullable
          from relations where kind <> 'c'
         union all
        select relation.name || '.' || attribute.attname, col_description(relation.oid, attribute.attnum),
               relation.kind in ('r', 'p', 'f'), not attribute.attnotnull
          from relations as relation
          join pg_attribute as attribute on attribute.attrelid = relation.oid
         where attribute.attnum > 0 and not attribute.attisdropped
         union all
        select typname::text, obj_description(type.oid, 'pg_type'), false, false
          from pg_type as type
         where typnamespace = current_schema()::regnamespace
           and (typtype in ('e', 'd', 'r') or typrelid in (select oid from relations where kind = 'c'))
         order by 1
        """,
    )


def test_every_table_view_type_and_column_has_a_comment(described):
    assert len(described) > 200
    assert [each["name"] for each in described if not re.search(r"\w.*\.$", each["comment"] or "")] == []


def test_comments_of_columns_say_what_null_means_and_in_what_an_amount_is_counted(described):
    columns = {each["name"]: each for each in described if each["in_table"]}
    nullable = {name for name, column in columns.items() if column["nullable"]}
    amounts = {name for name in columns if name.endswith("_cents")}
    assert nullable and amounts

    assert {name for name in nullable if not re.search(r"\bnull\b", columns[name]["comment"] or "", re.I)} == set()
    assert {name for name in amounts if "minor units" not in (columns[name]["comment"] or "")} == set()


# The rules of growth, as far as a look at the text can tell


RULES = {
    # One write a statement: as one large CTE the same work is many times slower on distributed servers.
    "no data-modifying CTE": (r"\bas\s+((not\s+)?materialized\s+)?\(\s*(insert|update|delete|merge)\b", set()),
    # It takes one lock of the whole cluster at commit.
    "no NOTIFY": (r"\b(pg_)?(notify|listen)\b", set()),
    # But for the level of isolation, which nobody could pass.
    "context comes in as arguments": (r"\b(set_config|current_setting)\b|;\s*(re)?set\b", {"inventory_lock_product"}),
    "no DDL": (r"\b(create|alter|drop|truncate|grant|revoke|comment\s+on|reindex|vacuum|analyze|lock)\b", set()),
    # and for a table that is not in every database
    "no dynamic SQL but for grants": (r"\bexecute\b", {*GRANTING, *MOVING, "checkout_erase"}),
    "conditions are named": (r"\bwhen\s+others\b", set()),
    # A checkout's time is read after its lock was got.
    "no time of the transaction": (r"\b(now\(\)|current_timestamp|transaction_timestamp)", SIGNING_KEYS),
}


@pytest.mark.parametrize("rule", RULES)
def test_functions_keep_the_rules(functions, rule):
    """What keeps the same SQL running on distributed servers, and readable."""
    pattern, allowed = RULES[rule]

    assert {name for name in FILES if re.search(pattern, code(functions[name]["body"]), re.I | re.M)} == allowed


@pytest.mark.parametrize("name", FILES)
def test_a_backslash_means_the_same_whatever_standard_conforming_strings_says(functions, name):
    """So it stands in E'...' alone; a body is read by the settings of the session that calls it."""
    rest = re.sub(r"\bE'(?:[^'\\]|\\.|'')*'", "", functions[name]["body"])
    assert "\\" not in re.sub(r"--.*", "", rest)


def statements(functions, keyword):
    """(function, statement) for each statement of PL/pgSQL that begins with a word."""
    for name in FILES:
        for found in re.findall(rf"\b{keyword}\b[^;]*", code(functions[name]["body"]), re.I):
            yield name, found


def reads_tables(functions, name, tables):
    return bool(re.search(rf"\b(from|join)\s+({'|'.join(tables)})\b", code(functions[name]["body"])))


@pytest.fixture(scope="module")
def tables(shared_db):
    return values(
        shared_db,
        "select relname::text from pg_class"
        " where relkind in ('r', 'p', 'v') and relnamespace = current_schema()::regnamespace",
    )


def test_a_sql_function_with_parameters_reads_no_table(functions, tables):
    """Citus plans no parameterized SQL function over distributed tables."""
    of_sql = {name for name in FILES if functions[name]["language"] == "sql"}
    assert of_sql

    assert {name for name in of_sql if reads_tables(functions, name, tables)} == set()


def test_no_function_that_reads_tables_stands_beside_tables_in_a_from(functions, tables):
    """Citus would send it to a shard, where it finds none of its tables."""
    read = [name for name in FILES if reads_tables(functions, name, tables)]
    called = re.compile(rf"(\bfrom|\bjoin|\blateral|,)\s*({'|'.join(read)})\s*\(")
    table = re.compile(rf"\b(from|join)\s+({'|'.join(tables)})\b")
    clauses = {
        (name, clause)
        for name in FILES
        for clause in re.findall(
            r"\bfrom\b(?:(?!\b(?:where|group by|order by|union|returning|set)\b)[^;])*", code(functions[name]["body"])
        )
    }
    assert any(called.search(clause) for _, clause in clauses), "the pattern finds them"

    assert {name for name, clause in clauses if called.search(clause) and table.search(clause)} == set()


_VOLATILE = re.compile(r"\b(clock_timestamp|gen_random_uuid|uuidv7|checkout_uuid|random|nextval)\s*\(")


def test_an_update_asks_for_nothing_volatile(functions):
    """Citus refuses it on distributed tables: the time is taken once, before."""
    found = list(statements(functions, "update"))
    assert len(found) > 10

    assert {name for name, statement in found if _VOLATILE.search(statement)} == set()


def test_an_update_has_only_immutable_parts_in_a_case(functions):
    """Citus refuses others in CASE and COALESCE: now(), and timestamptz + interval, which is only stable."""
    case = re.compile(r"\b(case|coalesce)\b.*(\binterval\b|\bmake_interval\b)|\b(case|coalesce)\b[^;]*\bnow\s*\(", re.S)

    assert {name for name, statement in statements(functions, "update") if case.search(statement)} == set()


def test_an_update_has_no_case_of_a_value(functions):
    """CASE x WHEN y is sent to a shard as text that is not SQL any more; CASE WHEN x = y is."""
    case = re.compile(r"\bcase\s+(?!\s|when\b)", re.I)

    assert {name for name, statement in statements(functions, "update") if case.search(statement)} == set()


def test_an_update_makes_no_text_of_its_enums(functions, shared_db):
    """The cast is stable, and Citus takes no such function of a column: the rows are found before, by their ids."""
    enums = values(
        shared_db,
        """
        select distinct attname::text
          from pg_attribute join pg_class on pg_class.oid = attrelid join pg_type on pg_type.oid = atttypid
         where typtype = 'e' and relkind = 'r' and relnamespace = current_schema()::regnamespace
        """,
    )
    cast = re.compile(rf"\b(?!v_)\w+\.({'|'.join(enums)})::text\b")
    assert any(cast.search(functions[name]["body"]) for name in FILES), "the pattern finds them"

    assert {name for name, statement in statements(functions, "update") if cast.search(statement)} == set()


def test_a_sql_function_calls_none_of_ours(functions):
    """Folded into a statement that goes to a shard, its body is read there, where no search_path leads to ours."""
    ours = re.compile(rf"\b({'|'.join(FILES)})\s*\(")
    of_sql = {name for name in FILES if functions[name]["language"] == "sql"}

    assert {name for name in of_sql if ours.search(code(functions[name]["body"]))} == set()


def test_no_whole_row_of_a_table_is_used_in_a_statement(functions, tables):
    """On a shard its type is the shard's, which no argument has, and no other row: row(line.*)::lines is ours."""
    found = set()
    for name in FILES:
        body = code(functions[name]["body"])
        aliases = set(re.findall(rf"\b(?:from|join|update)\s+(?:{'|'.join(tables)})\s+as\s+(\w+)", body))
        for alias in aliases:
            if re.search(rf"(?:\bselect\s+|,\s*|\()\b{alias}\b\s*(?=,|\)|\bfrom\b|\bas\b)", body):
                found.add((name, alias))

    assert found == {
        ("orders_list", "own"),  # by itself, and becomes ours by an assignment
        ("checkout_audit_slice", "line"),  # also what an element of JSON is called
        ("checkout_audit_rest", "slot"),  # also a column
    }


def test_insert_select_casts_literals_alone_to_enums(functions, shared_db):
    """Text to enum is a stable function, which INSERT ... SELECT cannot have on Citus."""
    enums = values(
        shared_db,
        "select typname::text from pg_type where typtype = 'e' and typnamespace = current_schema()::regnamespace",
    )
    cast = re.compile(rf"(?<!')::({'|'.join(enums)})\b")

    assert {key for key, (_, rest) in insert_selects(functions).items() if cast.search(rest)} == set()


def test_insert_select_adds_no_interval_to_a_timestamptz(functions):
    """It is a stable function too; in UTC, of a timestamp, it is not."""
    added = re.compile(r"(?<!at time zone ''\))\s\+\s*(make_interval|interval)\b")
    assert any("make_interval" in rest for _, rest in insert_selects(functions).values())

    assert {key for key, (_, rest) in insert_selects(functions).items() if added.search(rest)} == set()


def test_no_identity_column(shared_db):
    """Citus cannot take a table back that has one; a default from a sequence does the same."""
    assert values(shared_db, "select attrelid::regclass::text from pg_attribute where attidentity <> ''") == []


def test_triggers_are_told_their_table(shared_db):
    """On a shard, tg_table_name is the shard's."""
    triggers = rows(
        shared_db,
        """
        select tgname::text as name, tgrelid::regclass::text as table, encode(tgargs, 'escape') as arguments
          from pg_trigger where not tgisinternal
        """,
    )
    assert {each["name"]: each["arguments"].removesuffix("\\000") for each in triggers} == {
        each["name"]: each["table"] for each in triggers
    }
    assert not re.search(r"\btg_(table|rel)name\b|\btg_relid\b", code(MIGRATIONS))


# Volatile, or stable but evaluated where the row goes: on a distributed server each node would have its own.
_IMPURE = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|jsonb?_build_\w+|gen_random_uuid|uuidv7|checkout_uuid|random|nextval"
    r"|pg_current_xact_id|checkout_timestamp)\s*\("
)
_INSERT_SELECT = re.compile(r"\binsert\s+into\s+(\w+)[^(;]*\(([^)]*)\)\s*select\b(.*?)(?=;|\bon\s+conflict\b|\Z)", re.S)


def insert_selects(functions):
    return {
        (name, table): ({column.strip() for column in columns.split(",")}, rest)
        for name in FILES
        for table, columns, rest in _INSERT_SELECT.findall(code(functions[name]["body"]))
    }


def test_insert_select_is_pure(functions):
    """So that every node of a distributed server would write the same."""
    found = insert_selects(functions)

    assert len(found) >= 6, "the pattern finds them"
    assert {key for key, (_, rest) in found.items() if _IMPURE.search(rest)} == set()


def test_insert_select_lists_every_column_whose_default_is_no_constant(functions, shared_db):
    """A default would be computed where the row goes."""
    defaults = {
        (column["table"], column["name"])
        for column in rows(
            shared_db,
            """
            select attribute.attrelid::regclass::text as table, attribute.attname::text as name
              from pg_attrdef as def
              join pg_attribute as attribute on attribute.attrelid = def.adrelid and attribute.attnum = def.adnum
             where pg_get_expr(def.adbin, def.adrelid) ~ '[(]'
            """,
        )
    }
    assert ("cart_change_permits", "transaction_id") in defaults

    left_out = {
        (name, table, column)
        for (name, table), (columns, _) in insert_selects(functions).items()
        for of, column in defaults
        if of == table and column not in columns
    }
    assert left_out == set()
