"""A program that trains a recipe in a process of its own for each line it reads: soon, since all is imported before.

It answers a line with the process' number, and another with how it ended.
"""

import os
import sys
from pathlib import Path

from bigkeras.recipe import load
from bigkeras.runtime import Machine
from bigkeras.signals import Log
from bigkeras.train import fit


def main(recipe: Path) -> None:
    for line in sys.stdin:
        # TensorFlow is imported, but has not run anything yet: so the copy is as good as new.
        child = os.fork()
        if not child:
            fit(load(recipe), line.strip(), machine=Machine(checkpoint_seconds=0), log=Log(quiet=True))
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
