"""A release that changes a function brings a migration that says so: yoyo runs no hook when nothing is pending."""

import shutil
import subprocess
import sys

import pytest
from upgrade import ROOT

from pycheckout._release import deployment


def test_hash_on_file_is_that_of_the_functions():
    """PF-168: `make functions-hash` records it."""
    assert deployment().recorded_hash() == deployment().functions_hash()


def test_hash_depends_on_names_and_texts(tmp_path, monkeypatch):
    """PF-168"""
    deploy = deployment()
    monkeypatch.setattr(deploy, "FUNCTIONS", tmp_path)
    hashes = set()
    for name, text in [("a.sql", "select 1"), ("a.sql", "select 2"), ("b.sql", "select 2")]:
        for old in tmp_path.iterdir():
            old.unlink()
        (tmp_path / name).write_text(text)
        hashes.add(deploy.functions_hash())
    assert len(hashes) == 3


def test_hash_does_not_depend_on_the_room(tmp_path, monkeypatch):
    """What a database holds is the same."""
    deploy = deployment()
    monkeypatch.setattr(deploy, "FUNCTIONS", tmp_path)
    (tmp_path / "one" / "steps").mkdir(parents=True)
    (tmp_path / "one" / "a.sql").write_text("select 1")
    before = deploy.functions_hash()

    (tmp_path / "one" / "a.sql").rename(tmp_path / "one" / "steps" / "a.sql")
    assert deploy.functions_hash() == before

    (tmp_path / "one" / "a.sql").write_text("select 1")
    with pytest.raises(deploy.DeployError, match=r"a\.sql stands in .*one.* and in "):
        deploy.functions_hash()


def test_recording_writes_the_newest_functions_migration(tmp_path, monkeypatch):
    """PF-168"""
    deploy = deployment()
    for number in ("0020", "0021"):
        (tmp_path / f"pycheckout_{number}_functions.py").write_text('x = 1\nFUNCTIONS_HASH = ""\n')
    monkeypatch.setattr(deploy, "MIGRATIONS", tmp_path)

    deploy.record_hash()

    assert deploy.recorded_hash() == deploy.functions_hash()
    recorded = f'x = 1\nFUNCTIONS_HASH = "{deploy.functions_hash()}"\n'
    assert (tmp_path / "pycheckout_0021_functions.py").read_text() == recorded
    assert (tmp_path / "pycheckout_0020_functions.py").read_text() == 'x = 1\nFUNCTIONS_HASH = ""\n'


def test_program_tells_when_the_hash_is_stale(tmp_path):
    """PF-168: what CI runs."""
    shutil.copytree(ROOT / "db", tmp_path / "db")
    program = [sys.executable, str(tmp_path / "db" / "deploy.py")]
    subprocess.run([*program, "--record"], check=True)
    subprocess.run(program, check=True)

    (tmp_path / "db" / "functions" / "admin" / "checkout_version.sql").write_text("select 1;")
    stale = subprocess.run(program, capture_output=True, text=True)
    assert (stale.returncode, "records another hash" in stale.stderr) == (1, True)
