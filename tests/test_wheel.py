"""A wheel built from pyproject.toml works outside the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_a_wheel_installs_and_works_outside_the_checkout(tmp_path):
    # From a copy, without isolation: neither the checkout is littered nor a network needed.
    copy = tmp_path / "copy"
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git, which tells what belongs to it")
    listed = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if (ROOT / name).is_file():  # not what is removed, and not yet said so
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert (site / "bigkeras" / "models" / "imagenet_classes.txt").exists()
    run = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    # A model with layers of ours: each process must know them before it reads the run's .keras file.
    tiny = ["--set", "model=airbench", "--set", "model.widths=[8, 8]", "--set", "epochs=1"]
    for arguments in (["list"], ["train", "digits", *tiny, "--run-dir", run], ["export", run, "model"]):
        done = subprocess.run(
            [sys.executable, "-m", "bigkeras", *map(str, arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    app = [sys.executable, "-m", "apps.image_classification", str(run / "examples" / "00.png"), "--model", "model"]
    done = subprocess.run(app, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "%" in done.stdout
    where = [sys.executable, "-c", "import bigkeras; print(bigkeras.__file__)"]
    assert str(site) in subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
