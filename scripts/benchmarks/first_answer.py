"""From process start to an app's answer, beside `import tensorflow` alone: ./scripts/benchmark first-answer."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.interleave import ROOT, ratio_interval

# What each kind of shipped model is asked, by the beginning of its name; the others are asked about a picture.
ASKED = {
    "sentiment-": ("apps.sentiment", "Well done, all of it."),
    "translate-": ("apps.translation", "I have never seen such a beautiful garden."),
}
PICTURE = ("apps.image_classification", str(ROOT / "apps" / "samples" / "digits" / "two.png"))
APP, IMPORT = "the app", "import tensorflow"


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
    return 0


if __name__ == "__main__":
    sys.exit(main())
