"""A program that trains a recipe in a process of its own for each line it reads: soon, since all is imported before.

It answers a line with the process' number, and another with how it ended. A line is a run directory; before it there
may be "in-write ", for a process that kills itself in the middle of its second checkpoint, and "TF_CONFIG=… " of a
worker.
"""

import io
import os
import signal
import sys
from pathlib import Path

import numpy as np
from processes import CONFIG, IN_WRITE

from bigkeras.recipe import load
from bigkeras.runtime import Machine
from bigkeras.signals import Log
from bigkeras.train import fit


def kill_in_write(number: int) -> None:
    """Has this process killed when half of its checkpoint of that number is written."""
    savez, left = np.savez, [number]

    def half(file, **arrays) -> None:
        left[0] -= 1
        if left[0]:
            savez(file, **arrays)
            return
        whole = io.BytesIO()
        savez(whole, **arrays)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    np.savez = half


def main(recipe: Path, strategy: str = "auto") -> None:
    machine = Machine(strategy=strategy, checkpoint_seconds=0)
    for line in sys.stdin:
        # TensorFlow is imported, but has not run anything yet: so the copy is as good as new.
        child = os.fork()
        if not child:
            run = line.strip()
            if run.startswith(IN_WRITE):
                run = run.removeprefix(IN_WRITE)
                kill_in_write(2)
            if run.startswith(CONFIG):
                os.environ["TF_CONFIG"], run = run.removeprefix(CONFIG).split(" ", 1)
            fit(load(recipe), run, machine=machine, log=Log(quiet=True))
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
