"""Build what a release of the commit that is checked out consists of, and see that users get something that works.

The sdist, the wheel, one SQL file for psql, a bill of materials (CycloneDX), and the checksums of these.

    python tests/release.py               into dist/ (make release)
    python tests/release.py --look        only say whether this is a state to release; needs nothing but Python and git
    python tests/release.py --rehearse    what CI does: also for a version that CHANGELOG.md calls unreleased; on the
                                          versions of requirements.lock, not on today's; dist/ stays as it is

Nothing is uploaded. Exit status 1: it is no state to release, or what was built is not right.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUMS = "SHA256SUMS"


class Refused(Exception):
    """Why there is no release."""


def release() -> str:
    """The version, read without importing anything: nothing need be installed to refuse a release."""
    [version] = re.findall(r'^RELEASE = "([^"]+)"$', (ROOT / "db/deploy.py").read_text(), re.MULTILINE)
    return str(version)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="also for an unreleased version; dist/ stays as it is")
    parser.add_argument("--look", action="store_true", help="build nothing")
    args = parser.parse_args()
    try:
        if refusals := list(unfit(ROOT, release(), rehearsal=args.rehearse)):
            raise Refused("\n".join(refusals))
        if args.look:
            return
        with tempfile.TemporaryDirectory(prefix="pycheckout-release-") as temporary:
            # The demo's server, which is not root, passes through.
            folder = Path(temporary)
            folder.chmod(0o711)
            built = make(folder, pinned=args.rehearse)
            print((built / SUMS).read_text(), end="")
            if not args.rehearse:
                # Whoever uploads dist/* uploads nothing older.
                shutil.rmtree(ROOT / "dist", ignore_errors=True)
                shutil.copytree(built, ROOT / "dist")
    except Refused as refused:
        sys.exit(f"no release of {release()}: {refused}")


def unfit(root: Path, version: str, *, rehearsal: bool) -> Iterator[str]:
    """Why the checkout at `root` is no state to release `version` from."""
    if changed := git(root, "status", "--porcelain"):
        yield f"these files are not as they were committed:\n{changed}"
    headings = [line for line in (root / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    named, _, date = headings[0].removeprefix("## ").partition(", ") if headings else ("no version", "", "")
    if named != version:
        yield f"CHANGELOG.md begins with {named}, and db/deploy.py says {version}"
    elif date != "unreleased" or not rehearsal:
        try:
            datetime.date.fromisoformat(date)
        except ValueError:
            yield f"write the day of the release behind {version} in CHANGELOG.md: it says {date!r}"
    if not rehearsal and git(root, "tag", "--list", f"v{version}", "--no-contains", "HEAD"):
        yield f"v{version} is a tag of another commit: a new release takes a new number, in db/deploy.py"


def make(folder: Path, *, pinned: bool) -> Path:
    """Build and check in an empty folder; return the one of it that holds the release."""
    # The archives take the commit's time, so that whoever builds it gets the same bytes.
    os.environ["SOURCE_DATE_EPOCH"] = git(ROOT, "log", "-1", "--format=%ct").strip()
    step("build")
    dist = folder / "dist"
    sdist, wheel = built = build(dist)

    step("the sdist holds what git tracks")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = set(git(ROOT, "ls-files", "-z").split("\0")[:-1]) | {"PKG-INFO"}
    if differ := names ^ tracked:
        raise Refused(f"only in one of git and the sdist: {', '.join(sorted(differ))}")

    step("the wheel of the sdist is that of the tree")
    [again] = build(folder / "again", "--wheel")
    if (again.name, again.read_bytes()) != (wheel.name, wheel.read_bytes()):
        raise Refused("it is another one")

    step("twine")
    run(sys.executable, "-m", "twine", "check", "--strict", *built, cwd=folder)
    step("check-wheel-contents")
    config = ROOT / "pyproject.toml"
    run(sys.executable, "-m", "check_wheel_contents", "--config", config, wheel, cwd=folder)

    step("install into an empty environment")
    python = install(f"{wheel}[demo]", folder / "venv", pinned=pinned)
    run(python, "-m", "pip", "check", cwd=folder)
    home = run(python, "-c", "import pycheckout; print(pycheckout.__file__)", cwd=folder)
    if not Path(home).is_relative_to(folder):
        raise Refused(f"the environment is not empty: it has {home}")

    step("the demo")
    shown = run(python, "-m", "pycheckout.demo", cwd=folder)
    for wanted in (f"migrations of {release()} applied", "checkout_audit(): 0 broken invariants"):
        if wanted not in shown:
            raise Refused(f"the demo does not say {wanted!r}:\n{shown}")

    step("one SQL file for psql")
    one_file = run(sys.executable, ROOT / "tests" / "install_script.py", cwd=folder)
    (dist / f"pycheckout-{release()}.sql").write_text(one_file, encoding="utf-8")

    step("the bill of materials")
    materials = bill_of_materials(wheel, folder / "runtime", pinned=pinned)
    (dist / f"pycheckout-{release()}.cdx.json").write_text(materials, encoding="utf-8")

    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(dist.iterdir())]
    (dist / SUMS).write_text("".join(sums), encoding="utf-8")
    return dist


def build(folder: Path, *only: str) -> list[Path]:
    """Build in this environment: the sdist and, from it, the wheel; or `--wheel`, from the tree alone."""
    run(sys.executable, "-P", "-m", "build", "--no-isolation", *only, "--outdir", folder, ROOT, cwd=ROOT)
    return [*folder.glob("*.tar.gz"), *folder.glob("*.whl")]


def install(what: str, folder: Path, *, pinned: bool = True, with_pip: bool = True) -> Path:
    """Install into a new environment and return its Python."""
    venv.create(folder, with_pip=with_pip, symlinks=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip"] if with_pip else [sys.executable, "-m", "pip", "--python", python]
    pins = ["--constraint", ROOT / "requirements.lock"] if pinned else []
    run(*pip, "--disable-pip-version-check", "--quiet", "install", *pins, what, cwd=folder)
    return python


def bill_of_materials(wheel: Path, folder: Path, *, pinned: bool) -> str:
    """What the wheel brings along without extras, as CycloneDX; the release itself is its main component."""
    python = install(str(wheel), folder, pinned=pinned, with_pip=False)
    options = ["--pyproject", ROOT / "pyproject.toml", "--mc-type", "library", "--output-reproducible"]
    found = json.loads(run(sys.executable, "-m", "cyclonedx_py", "environment", python, *options, cwd=folder))
    # the version is not in pyproject.toml
    found["metadata"]["component"] |= {"version": release(), "purl": f"pkg:pypi/pycheckout@{release()}"}
    if missing := {"psycopg", "yoyo-migrations"} - {component["name"] for component in found["components"]}:
        raise Refused(f"it lacks {', '.join(sorted(missing))}")
    return json.dumps(found, indent=2) + "\n"


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a program that neither the repository nor this environment may help."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"{shlex.join(map(str, command))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def git(root: Path, *command: str) -> str:
    # A checkout may belong to another user than the one who builds it.
    return run("git", "-c", f"safe.directory={root}", *command, cwd=root)


def step(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


if __name__ == "__main__":
    main()
