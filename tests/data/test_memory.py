"""A data set larger than memory trains in constant memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
# Decoded, the pictures of the second run take 1.8 GB; the first one has met all that does not grow with their number.
FEW, MANY = 20, 100
SIZE = (3000, 2000)
ALLOWED_MEGABYTES = 300

SCRIPT = """
import json, sys
from pathlib import Path

from bigkeras.signals import Log
from bigkeras.recipe import Choice
from bigkeras.recipes import RECIPES
from bigkeras.tasks import classification
from bigkeras.train import fit

classification.MEMORY = 0  # every picture is read anew in every epoch, as those of a large set are
folder, out = sys.argv[1:]
peaks = []
for count in {counts}:
    recipe = RECIPES["image-folder"].override(**{{
        "data.directory": f"{{folder}}/{{count}}", "model": Choice("simple_cnn", {{"width": 4}}), "task.height": 32,
        "epochs": 1, "batch_size": 8,
    }})
    fit(recipe, f"{{out}}/{{count}}", log=Log(quiet=True))
    # The usage that the system tells of a process begins at the peak of the one that started it; this does not.
    peaks.append(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
print(json.dumps(peaks))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1] // 100, SIZE[0] // 100, 3), np.uint8)
    Image.fromarray(pixels).resize(SIZE).save(tmp_path / "one.jpg")
    picture = (tmp_path / "one.jpg").read_bytes()
    for count in (FEW, MANY):
        for number in range(count):
            folder = tmp_path / str(count) / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            # Another one each time: equal pictures stand in one split.
            (folder / f"{number}.jpg").write_bytes(picture + bytes([number]))
    script = SCRIPT.format(counts=(FEW, MANY))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    few, many = json.loads(done.stdout.splitlines()[-1])
    assert many - few < ALLOWED_MEGABYTES
