"""From process start to an app's answer, beside `import tensorflow` alone: ./scripts/benchmark first-answer.

And how long a process that has loaded the model, as an app does for what is typed, takes for each later one.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.interleave import ROOT, ratio_interval

# What each kind of shipped model is asked, by the beginning of its name; the others are asked about a picture.
ASKED = {
    "sentiment-": ("apps.sentiment", "Well done, all of it."),
    "translate-": ("apps.translation", "I have never seen such a beautiful garden."),
}
PICTURE = ("apps.image_classification", str(ROOT / "apps" / "samples" / "digits" / "two.png"))
APP, IMPORT = "the app", "import tensorflow"
TYPED = 40  # answers after the first


def main(arguments: Sequence[str] | None = None) -> int:
    """Starts both in turn, prints the times and their ratio; gives 1 where a process fails."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark first-answer", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="turns of both (%(default)s)")
    parser.add_argument("--model", default="digits", help="a shipped model: digits, sentiment-en, translate-en-de, …")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    asked = next((asked for name, asked in ASKED.items() if options.model.startswith(name)), PICTURE)
    commands = {
        APP: ["-m", *asked, "--model", options.model],
        IMPORT: ["-c", "import tensorflow"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(-1, options.rounds):  # once uncounted, so that all files are in memory
        names = list(commands) if number % 2 else list(commands)[::-1]
        for name in names:
            began = time.perf_counter()
            done = subprocess.run([sys.executable, *commands[name]], cwd=ROOT, capture_output=True, text=True)
            taken = time.perf_counter() - began
            if done.returncode:
                print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                return 1
            if number >= 0:
                times[name].append(taken)
    for name, of in times.items():
        print(f"{name}: {np.median(of):.2f} s (median of {options.rounds}; {min(of):.2f} to {max(of):.2f})")
    ratio, low, high = ratio_interval(times[APP], times[IMPORT])
    print(f"{APP} takes {ratio:.3f} ({low:.3f} to {high:.3f}) of {IMPORT}'s time")
    later = later_answers(options.model, asked[1])
    print(f"each later answer: {1000 * np.median(later):.1f} ms (median of {TYPED}; {1000 * min(later):.1f} to "
          f"{1000 * max(later):.1f})")  # fmt: skip
    return 0


def later_answers(model: str, text: str) -> list[float]:
    """Seconds that each answer after the first takes, loaded as an app loads it for what is typed."""
    from apps import savedmodel

    loaded = savedmodel.load(
        savedmodel.find_model(model), optimise=False, only=["serving_default"],
        threads=1 if model.startswith("translate-") else None,
    )  # fmt: skip
    (name,) = loaded.signatures["serving_default"].inputs
    given = [Path(text).read_bytes() if name == "image" else text.encode()]
    times = []
    for _ in range(TYPED + 1):
        began = time.perf_counter()
        loaded.run("serving_default", {name: given})
        times.append(time.perf_counter() - began)
    return times[1:]


if __name__ == "__main__":
    sys.exit(main())
