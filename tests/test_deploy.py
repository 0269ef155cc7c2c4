"""The files of deploy/ are well-formed, and the commands in them are ours. None is run: the hardware is not here."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from bigkeras.__main__ import make_parser
from bigkeras.recipes import RECIPES
from bigkeras.runtime import STRATEGIES

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def parsed(command: list[str]):
    """A command line as our own parser reads it; fails on an option that is not there."""
    assert command[0] == "bigkeras"
    options = make_parser().parse_args(command[1:])
    assert options.strategy in STRATEGIES
    return options


def test_the_slurm_script_is_bash_with_known_options():
    path = DEPLOY / "slurm.sh"
    subprocess.run(["bash", "-n", path], check=True)
    lines = path.read_text().splitlines()
    header = [line for line in lines if line.startswith("#SBATCH")]
    assert header
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in header)
    # Slurm reads no option after the first command.
    assert max(lines.index(line) for line in header) < lines.index("set -u")
    command = next(line.strip() for line in lines if line.strip().startswith("bigkeras train"))
    assert parsed(shlex.split(command)[:-1]).strategy == "multiworker"


def test_the_manifest_is_a_job_of_workers_that_train_a_recipe():
    job = yaml.safe_load((DEPLOY / "tfjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    assert list(job["spec"]["tfReplicaSpecs"]) == ["Worker"]
    pod = job["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "tensorflow"
    options = parsed(container["command"])
    assert options.strategy == "multiworker"
    assert options.recipe in RECIPES
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


TPU_LINES = re.findall(r"^\$? ?bigkeras .+$", (DEPLOY / "tpu-vm.md").read_text(), re.MULTILINE)
assert TPU_LINES


@pytest.mark.parametrize("line", TPU_LINES)
def test_the_commands_of_the_tpu_page_are_ours(line):
    options = parsed(shlex.split(line.removeprefix("$ ")))
    assert options.strategy == "tpu"
    assert options.recipe in RECIPES


def test_the_tpu_page_pins_its_own_tensorflow():
    assert re.search(r"tensorflow-tpu==\d+\.\d+\.\d+ keras==\d+\.\d+\.\d+", (DEPLOY / "tpu-vm.md").read_text())
