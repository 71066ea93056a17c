"""`make release` refuses what is no state to release from; CI rehearses the rest of it."""

import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from release import ROOT, Refused, git, run, unfit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

TODAY = datetime.date.today().isoformat()


@pytest.fixture
def checkout(tmp_path):
    """checkout("## 0.2.0, unreleased"): a repository of one commit, with that heading in CHANGELOG.md."""

    def checkout(*headings):
        git(tmp_path, "init", "--quiet")
        (tmp_path / "CHANGELOG.md").write_text("\n\n".join(["# Changelog", *headings, ""]))
        commit(tmp_path)
        return tmp_path

    return checkout


def commit(root: Path) -> None:
    git(root, "add", ".")
    git(
        root,
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@localhost",
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        "One more",
    )


@pytest.mark.parametrize("rehearsal", [False, True])
def test_a_clean_commit_of_a_dated_version_can_be_released(checkout, rehearsal):
    root = checkout(f"## 0.2.0, {TODAY}", "## 0.1.0, 2026-01-31")
    git(root, "tag", "v0.1.0")
    git(root, "tag", "v0.2.0")

    assert [*unfit(root, "0.2.0", rehearsal=rehearsal)] == []


def test_an_unreleased_version_can_only_be_rehearsed(checkout):
    root = checkout("## 0.2.0, unreleased")

    assert [*unfit(root, "0.2.0", rehearsal=True)] == []
    [refusal] = unfit(root, "0.2.0", rehearsal=False)
    assert "write the day" in refusal and "'unreleased'" in refusal


@pytest.mark.parametrize("rehearsal", [False, True])
@pytest.mark.parametrize(
    "heading", ["## 0.2.0", "## 0.2.0, soon", f"## 0.2.0 {TODAY}", "# 0.2.0, unreleased", "## 0.1.0, unreleased"]
)
def test_a_version_without_its_heading_is_refused(checkout, heading, rehearsal):
    assert len([*unfit(checkout(heading), "0.2.0", rehearsal=rehearsal)]) == 1


def test_an_older_version_is_refused(checkout):
    [refusal] = unfit(checkout("## 0.3.0, unreleased", f"## 0.2.0, {TODAY}"), "0.2.0", rehearsal=True)

    assert refusal == "CHANGELOG.md begins with 0.3.0, and db/deploy.py says 0.2.0"


@pytest.mark.parametrize("name", ["CHANGELOG.md", "new.txt"])
def test_files_that_are_not_committed_are_refused(checkout, name):
    root = checkout(f"## 0.2.0, {TODAY}")
    with (root / name).open("a") as file:
        file.write("more\n")

    [refusal] = unfit(root, "0.2.0", rehearsal=True)
    assert name in refusal


def test_the_number_of_a_release_is_not_used_twice(checkout):
    root = checkout(f"## 0.2.0, {TODAY}")
    git(root, "tag", "v0.2.0")
    commit(root)

    [refusal] = unfit(root, "0.2.0", rehearsal=False)
    assert "v0.2.0 is a tag of another commit" in refusal


def test_make_refuses_before_it_installs_anything(checkout):
    """Three minutes of installing, and then: no."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    root = checkout("## 0.1.0, unreleased")
    for name in ("Makefile", "db/deploy.py", "tests/release.py"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    commit(root)
    (root / "new.txt").write_text("not committed")
    # A Python that has nothing installed, and a pip that cannot.
    command = ["make", "release", "PIP=false", f"PYTHON={sys.executable} -I -S"]
    # The make that runs the suite would hand its ARGS on.
    env = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES")}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode != 0
    assert "no release of " in done.stderr and "new.txt" in done.stderr
    assert not (root / ".venv").exists()


def test_a_program_that_fails_is_told_with_what_it_said(tmp_path):
    with pytest.raises(Refused, match=r"(?s)git no-such-command ended with 1\n.*is not a git command"):
        run("git", "no-such-command", cwd=tmp_path)
