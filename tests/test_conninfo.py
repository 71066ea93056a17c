"""One DATABASE_URL serves libpq, SQLAlchemy and all that pycheckout has."""

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

import pycheckout
from pycheckout import _conninfo
from pycheckout.relay import Relay


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg_async", "postgresql+asyncpg"]
)
def test_a_driver_in_the_scheme_counts_for_nothing(scheme):
    found = _conninfo.parameters(f"{scheme}://shop:a%2Bb@db:5433/shop?sslmode=require")

    expected = {"user": "shop", "password": "a+b", "host": "db", "port": "5433", "dbname": "shop", "sslmode": "require"}
    assert found == expected


def test_other_schemes_stay_what_they_are():
    with pytest.raises(psycopg.ProgrammingError):
        _conninfo.parameters("mysql+psycopg://db/shop")
    assert _conninfo.parameters("host=db dbname=postgresql+psycopg://") == {
        "host": "db",
        "dbname": "postgresql+psycopg://",
    }


def test_our_own_sessions_speak_utf8_whatever_is_asked_for(dsn, monkeypatch):
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    monkeypatch.setenv("PGOPTIONS", "-c client_encoding=SQL_ASCII")
    for database in (dsn, f"{dsn}?client_encoding=SQL_ASCII"):
        with psycopg.connect(**_conninfo.own(database)) as conn:
            assert conn.execute("select 'é'::text").fetchone() == ("é",)


@pytest.mark.parametrize(
    "database",
    [
        "",
        "postgresql:///shop?host=/run/postgresql",
        "postgresql://shop:a%2F%40b@db:5433/s%2Fhop?sslmode=require&application_name=a%20b",
        "host=/run/postgresql user=shop",
        "host=a,b port=1,2 dbname=shop",
        "hostaddr=::1 dbname=shop",
        "host=::1 dbname=shop",
        "host=@abstract dbname=shop",
        r"user='it\'s' password='\\' dbname=shop",
        "options='-c search_path=a,b' dbname=shop",
    ],
)
def test_a_url_says_what_the_parameters_say(database):
    params = conninfo_to_dict(database)

    assert conninfo_to_dict(_conninfo.url(params)) == params


def test_one_url_serves_sqlalchemy_and_pycheckout(empty_database):
    url = empty_database().replace("postgresql://", "postgresql+psycopg://")

    migrated = pycheckout.migrate(url)
    with create_engine(url, poolclass=NullPool).connect() as conn:
        [version] = conn.execute(text("select checkout_version() ->> 'version'")).one()
    undone = pycheckout.rollback(url)

    assert version == migrated.version
    assert undone.migrations == migrated.migrations[::-1]
    Relay(url, "redis://127.0.0.1")
