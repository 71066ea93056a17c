"""A release that changes a function brings a migration that says so: yoyo runs no hook when nothing is pending."""

import re
import shutil
import subprocess
import sys

import pytest
from upgrade import IDS, ROOT

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


@pytest.fixture
def released(tmp_path, monkeypatch):
    """The path of the only functions migration, that of release 0.1.0, in a tree that makes 0.2.0 of another hash."""
    deploy = deployment()
    monkeypatch.setattr(deploy, "MIGRATIONS", tmp_path)
    monkeypatch.setattr(deploy, "RELEASE", "0.2.0")
    path = tmp_path / "pycheckout_0020_functions.py"
    path.write_text('RELEASE = "0.1.0"\nFUNCTIONS_HASH = "old"\n')
    return path


def test_a_released_migration_is_not_recorded_over(released):
    """`rollback --to` finds what it goes back to by the release that is written there."""
    before = released.read_text()
    with pytest.raises(
        deployment().DeployError, match=r"0020_functions\.py is that of release 0\.1\.0.* copy it under"
    ):
        deployment().record_hash()
    assert released.read_text() == before
    assert deployment().last_migration("0.1.0") == released.stem


def test_its_copy_is_that_of_the_next_release(released):
    before = released.read_text()
    copy = released.with_name("pycheckout_0022_functions.py")
    copy.write_text(before)
    for _ in range(2):
        deployment().record_hash()
        assert 'RELEASE = "0.2.0"' in copy.read_text() and deployment().functions_hash() in copy.read_text()
    assert released.read_text() == before


def test_a_release_that_changed_no_function_records_nothing(released):
    released.write_text(before := released.read_text().replace("old", deployment().functions_hash()))
    deployment().record_hash()
    assert released.read_text() == before


def test_a_number_that_was_never_released_may_be_given_up(released):
    released.write_text(released.read_text().replace("0.1.0", ""))
    deployment().record_hash()
    assert 'RELEASE = "0.2.0"' in released.read_text()


def test_the_functions_migration_is_the_last():
    """What a release goes back to is all that it had."""
    assert deployment().functions_migration().stem == IDS[-1]


def test_program_says_what_to_do_with_a_released_migration(tmp_path):
    shutil.copytree(ROOT / "db", tmp_path / "db")
    deploy = tmp_path / "db" / "deploy.py"
    deploy.write_text(re.sub(r'^RELEASE = ".*"$', 'RELEASE = "99.0.0"', deploy.read_text(), flags=re.MULTILINE))
    (tmp_path / "db" / "functions" / "admin" / "checkout_version.sql").write_text("select 1;")
    refused = subprocess.run([sys.executable, str(deploy), "--record"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{IDS[-1]}.py is that of release") and "Traceback" not in refused.stderr


def test_program_tells_when_the_hash_is_stale(tmp_path):
    """PF-168: what CI runs."""
    shutil.copytree(ROOT / "db", tmp_path / "db")
    program = [sys.executable, str(tmp_path / "db" / "deploy.py")]
    subprocess.run([*program, "--record"], check=True)
    subprocess.run(program, check=True)

    (tmp_path / "db" / "functions" / "admin" / "checkout_version.sql").write_text("select 1;")
    stale = subprocess.run(program, capture_output=True, text=True)
    assert (stale.returncode, "records another hash" in stale.stderr) == (1, True)
