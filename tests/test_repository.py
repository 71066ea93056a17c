"""The repository works on any machine: it names neither this one nor where packages come from."""

import itertools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# In two parts, or this file would be found.
HOSTS = ["py" + "pi.org", "python" + "hosted.org", "index" + "-url", "find" + "-links"]


def files() -> list[Path]:
    """What is tracked, and what would be with the next `git add .`."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    # A checkout may belong to another user than the one who tests it.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def folders_of_this_machine() -> set[str]:
    """Where the checkout, the home and the Python of this run are; a folder that every machine has tells nothing."""
    folders = {ROOT, ROOT.parent, Path.home(), Path(sys.prefix), Path(sys.base_prefix)}
    return {f"{folder}/" for folder in map(str, folders) if folder not in ("/", "/usr", "/usr/local", "/tmp")}


def test_no_file_names_this_machine_or_a_package_registry() -> None:
    # A path stands at the start of a word; `/src/` inside a longer one is none of this machine's.
    paths = [rf"(?<![\w.~-]){re.escape(folder)}" for folder in sorted(folders_of_this_machine())]
    wanted = re.compile("|".join(paths + [re.escape(host) for host in HOSTS]))

    found = [
        f"{file.relative_to(ROOT)}:{number}: {line}"
        for file in files()
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1)
        if wanted.search(line)
    ]
    assert found == []


def test_the_lock_pins_versions_and_nothing_else() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()

    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def test_the_lock_pins_what_every_extra_needs() -> None:
    """`make lock` writes it; what has no pin would be another version on every machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = map(Requirement, itertools.chain(project["dependencies"], *project["optional-dependencies"].values()))
    lines = (ROOT / "requirements.lock").read_text().split()
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}

    unmet = set()
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if name != project["name"] and not (name in pins and requirement.specifier.contains(pins[name])):
            unmet.add(str(requirement))
    assert unmet == set()


def test_hooks_run_the_pinned_programs() -> None:
    """No repository of hooks, whose versions would stand beside those of the lock."""
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]

    assert hooks
    assert {repo["repo"] for repo in repos} == {"local"}
    assert [hook for hook in hooks if hook["language"] != "pygrep" and not hook["entry"].startswith(".venv/bin/")] == []


def test_the_steps_of_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
