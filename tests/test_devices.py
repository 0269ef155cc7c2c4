"""The same training on one device, on two replicas and on two workers: every kind of recipe, every optimizer."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from device_cases import KINDS, OPTIMIZERS, Trained, cnn, load, recipe, start_weights, train, train_case
from processes import surroundings

from bigkeras.__main__ import make_parser
from bigkeras.assembly import make_step
from bigkeras.data.pipeline import plan_rows, replica_rows
from bigkeras.data.plan import epoch_plan
from bigkeras.launch import configurations
from bigkeras.recipe import Choice
from bigkeras.recipe_data import load_splits
from bigkeras.recipes import RECIPES
from bigkeras.replicas import own_randomness
from bigkeras.runtime import (
    TPU_STEPS_PER_CALL,
    Machine,
    MachineError,
    choose,
    chosen,
    settled,
)
from bigkeras.signals import Log
from bigkeras.step import Step
from bigkeras.strategies import strategy, worker_resolver
from bigkeras.tasks import TASKS
from bigkeras.tasks.classification import LOSSES
from bigkeras.train import fit
from bigkeras.workers import LostWorker, Workers, lost_workers

ROOT = Path(__file__).resolve().parents[1]
# Largest difference of a weight; Muon divides by a matrix' singular values, which makes rounding larger.
TOLERANCE = {"float32": 1e-6, "float64": 1e-10}
MUON = 1e-7
# 2⁻⁸ is bfloat16's rounding; an update is at most the clipped gradient, 0.5, times the learning rate, 0.1.
HALF = 2**-8 * 0.5 * 0.1
ON_WORKERS = [
    "cnn-sgd-float32",
    "lstm-sgd-float32",
    "encoder-sgd-float32",
    "translator-sgd-float32",
    "encoder-adamw-float64",
    *(f"{kind}-{optimizer}-float64" for kind in ("cnn", "translator") for optimizer in ("sgd", "adam")),
]
HALF_ON_WORKERS = ["cnn-sgd-mixed_bfloat16"]


@pytest.fixture(scope="module")
def two_replicas() -> tf.distribute.Strategy:
    return strategy(Machine(strategy="mirrored", replicas=2))


@functools.cache
def on_one_device(kind: str, optimizer: str, policy: str) -> Trained:
    return train(recipe(kind, optimizer), tf.distribute.get_strategy(), policy)


def largest_difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    pairs = zip(one, other, strict=True)
    return max(float(np.abs(a.astype("float64") - b.astype("float64")).max()) for a, b in pairs)


def assert_same(one: Trained, other: Trained, tolerance: float) -> None:
    assert largest_difference(one.weights, other.weights) < tolerance
    assert largest_difference(one.averages, other.averages) < tolerance
    # Of another process' training, loss and accuracy only.
    assert {"loss", "accuracy"} <= set(other.logs)
    assert other.logs == pytest.approx({name: one.logs[name] for name in other.logs}, rel=1e-5)


def matrix():
    """Every kind with SGD in float32, and every optimizer in float64; of the recurrent ones, the LSTM for all."""
    yield from ((kind, "sgd", "float32") for kind in KINDS)
    for kind in ("cnn", "lstm", "encoder", "translator"):
        for optimizer in OPTIMIZERS:
            quick = (kind, optimizer) == ("encoder", "adamw")
            yield pytest.param(kind, optimizer, "float64", marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "optimizer", "policy"), matrix())
def test_two_replicas_end_in_the_weights_of_one_device(kind, optimizer, policy, two_replicas):
    tolerance = MUON if optimizer == "muon" else TOLERANCE[policy]
    one = on_one_device(kind, optimizer, policy)
    assert one.weights[0].dtype == policy
    assert_same(one, train(recipe(kind, optimizer), two_replicas, policy), tolerance)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_two_replicas_make_the_same_update_in_half_precision(kind, policy, two_replicas):
    case = f"{kind}-sgd-{policy}"
    one, two = train_case(case, tf.distribute.get_strategy()), train_case(case, two_replicas)
    assert largest_difference(one.weights, two.weights) < HALF
    assert largest_difference(one.weights, start_weights(kind, policy)) > HALF


def test_several_steps_in_one_call_on_two_replicas_end_in_the_weights_of_one_device(two_replicas):
    two = train(recipe("cnn", "sgd"), two_replicas, "float32", steps_per_call=2)
    assert_same(on_one_device("cnn", "sgd", "float32"), two, TOLERANCE["float32"])


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory) -> Path:
    """A directory with what two processes of one replica each have trained together."""
    folder = tmp_path_factory.mktemp("workers")
    program = [sys.executable, str(ROOT / "tests" / "device_cases.py"), str(folder), *ON_WORKERS, *HALF_ON_WORKERS]
    launch = [sys.executable, "-m", "bigkeras.launch", "2", "--logs", str(folder), "--", *program]
    group = subprocess.Popen(launch, env=surroundings(), stderr=subprocess.PIPE, text=True)
    try:
        _, told = group.communicate(timeout=1500)
    finally:
        group.terminate()  # not killed: its workers are asked to leave, too
        group.wait(300)
    assert group.returncode == 0, told + (folder / "worker-0.log").read_text()[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", HALF_ON_WORKERS)
def test_two_workers_make_the_same_update_in_half_precision(case, two_workers):
    one = train_case(case, tf.distribute.get_strategy())
    assert largest_difference(one.weights, load(two_workers / f"{case}.npz").weights) < HALF


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", ON_WORKERS)
def test_two_workers_end_in_the_weights_of_one_device(case, two_workers):
    kind, optimizer, policy = case.split("-")
    one = on_one_device(kind, optimizer, policy)
    assert_same(one, load(two_workers / f"{case}.npz"), TOLERANCE[policy])


def test_each_replica_gets_its_run_of_neighbours_in_every_batch():
    rows = plan_rows(lambda e: epoch_plan(np.zeros(10), batch_size=8, seed=0, epoch=e), range(1))
    whole = np.stack([row["index"] for row in rows.as_numpy_iterator()])
    parts = [[row["index"] for row in replica_rows(rows, first, 2, 4).as_numpy_iterator()] for first in (0, 2)]
    assert np.array_equal(np.concatenate([np.reshape(p, (2, 4)) for p in parts], 1), whole)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", r"TF_CONFIG=\{: not of the form"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "not of the form"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}', "names the job ps"),
        ('{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}', "not of the form"),
        ("", "TF_CONFIG is not set, and this is no step of Slurm"),
    ],
)
def test_a_cluster_that_cannot_be_is_named(config, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    with pytest.raises(MachineError, match=message):
        worker_resolver()


def test_a_worker_that_is_gone_is_named():
    workers = Workers(tf.distribute.get_strategy())
    workers.count = 2
    for text in (
        "node /job:worker/replica:0/task:0: Additional GRPC error information from remote target ",
        "Error reported from /job:worker/task:0: The following tasks are unhealthy (stopped sending heartbeats):\n",
    ):
        with pytest.raises(LostWorker, match="worker 1 is gone or does not answer"), lost_workers(workers):
            raise tf.errors.UnavailableError(None, None, text + "/job:worker/replica:0/task:1\nThe tasks have crashed")


@pytest.mark.parametrize(
    "text",
    [
        "Collective ops ... is joining a group with size 8, but that group has size 16 (group_key=1)",
        "Collective ops ... incompatible device type: CPU joining a group of GPU",
    ],
)
def test_workers_that_see_other_gpus_are_told_so(text):
    workers = Workers(tf.distribute.get_strategy())
    workers.count = 2
    with pytest.raises(LostWorker, match="sees 0 GPUs, and others another number"), lost_workers(workers):
        raise tf.errors.InternalError(None, None, text)
    with pytest.raises(tf.errors.InternalError), lost_workers(workers):
        raise tf.errors.InternalError(None, None, "something else")


@pytest.mark.parametrize(("job", "lacking"), [("worker", "chief"), ("worker", "ps"), ("ps", "chief"), ("ps", "worker")])
def test_a_cluster_that_lacks_a_job_ends_in_every_process_at_once(job, lacking, tmp_path, monkeypatch):
    cluster = {name: ["127.0.0.1:1"] for name in ("chief", "worker", "ps") if name != lacking}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": job, "index": 0}}))
    monkeypatch.setattr("bigkeras.train.serve", lambda: pytest.fail("waits for a chief"))
    with pytest.raises(MachineError, match=f"TF_CONFIG names no job {lacking}"):
        fit(RECIPES["digits"], tmp_path / "run", machine=Machine(strategy="parameter_server"), log=Log(quiet=True))


def test_a_machine_without_a_tpu_says_so_in_one_line(run_cli, tmp_path):
    done = run_cli("train", "digits", "--strategy", "tpu", "--run-dir", tmp_path / "run", TPU_NAME="local")
    assert (done.rc, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("bigkeras: --strategy tpu: no TPU answers (")
    assert "Traceback" not in done.stderr


def test_a_tpu_gets_several_compiled_steps_in_a_call_unless_told():
    assert settled(Machine(strategy="tpu")) == Machine(strategy="tpu", steps_per_call=TPU_STEPS_PER_CALL, xla=True)
    assert settled(Machine(strategy="tpu", steps_per_call=2)).steps_per_call == 2
    with pytest.raises(MachineError, match="--no-xla: on a TPU every step is compiled"):
        settled(Machine(strategy="tpu", xla=False))


@pytest.mark.parametrize(
    ("gpus", "model", "augmentation", "asked", "xla"),
    [
        (0, "simple_cnn", "crop", None, False),
        (0, "simple_cnn", "crop", True, True),
        (1, "simple_cnn", "crop", None, True),
        (1, "simple_cnn", "crop", False, False),
        (1, "lstm", "crop", None, False),  # Keras takes cuDNN's
        (1, "simple_cnn", "mix_up", None, False),  # Keras would, but XLA has no kernel
    ],
)
def test_a_step_is_compiled_on_one_gpu_where_all_of_it_can_be_or_as_told(
    gpus, model, augmentation, asked, xla, monkeypatch
):
    few = RECIPES["digits"].override(model=Choice(model), augmentation=(Choice(augmentation),))
    splits = load_splits(few)
    task = TASKS["image_classification"](splits, few.augmentation)
    find(["CPU", *["GPU"] * gpus], monkeypatch)
    step = make_step(few, splits, task, Machine(strategy="one", xla=asked), None)
    assert (step.xla, step.steps_per_call) == (xla, 1)


def find(kinds: list[str], monkeypatch) -> None:
    """Has TensorFlow find these kinds of devices."""
    devices = [SimpleNamespace(device_type=kind, name=kind) for kind in kinds]
    found = lambda kind=None: [device for device in devices if kind in (None, device.device_type)]  # noqa: E731
    for name in ("physical", "logical"):
        monkeypatch.setattr(f"tensorflow.config.list_{name}_devices", found)


def test_several_gpus_are_not_compiled_and_told_to_they_refuse(two_replicas, monkeypatch):
    with two_replicas.scope():
        step = Step(cnn(), normalise=lambda x: x, loss=LOSSES["cross_entropy"](), num_classes=3, xla=None)
        find(["CPU", "GPU", "GPU"], monkeypatch)
        step.begin(keras.optimizers.SGD())
    assert step.xla is False
    with pytest.raises(MachineError, match="--xla: XLA compiles a step for one device, and mirrored takes 2 here"):
        chosen(Machine(strategy="mirrored", xla=True))


def test_xla_compiles_no_step_over_several_devices(two_replicas):
    # The day it does, what the test above has refused can be had.
    with two_replicas.scope():
        variable = tf.Variable(0.0)

    @tf.function(jit_compile=True)
    def step():
        two_replicas.run(lambda: variable.assign_add(1.0))

    with pytest.raises(tf.errors.InvalidArgumentError, match="located in device"):
        step()


def test_a_run_says_and_notes_what_was_asked_of_the_device(tmp_path, capsys):
    few = RECIPES["digits"].override(
        **{"epochs": 1, "batch_size": 512, "augmentation": (), "model": Choice("simple_cnn")}
    )
    fit(few, tmp_path, machine=Machine(xla=True, steps_per_call=2))
    assert "strategy one: 2 steps in a call, compiled by XLA\n" in capsys.readouterr().err
    noted = json.loads((tmp_path / "environment.json").read_text())["run"]
    assert (noted["strategy"], noted["steps_per_call"], noted["xla"]) == ("one", 2, True)


@pytest.mark.parametrize(("options", "xla"), [([], None), (["--xla"], True), (["--no-xla"], False)])
def test_the_command_line_tells_what_was_said_of_xla_from_what_was_left_open(options, xla):
    parsed = make_parser().parse_args(["train", "digits", *options])
    assert (parsed.xla, parsed.steps_per_call) == (xla, None)


def test_auto_takes_the_workers_that_tf_config_names(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", configurations(2)[1]["TF_CONFIG"])
    assert choose("auto") == ("multiworker", "TF_CONFIG names 2 workers")


def test_auto_takes_the_parameter_servers_that_tf_config_names(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", configurations(2, 1)[0]["TF_CONFIG"])
    assert choose("auto") == ("parameter_server", "TF_CONFIG names parameter servers")


@pytest.mark.parametrize("gpus", [0, 8])
def test_the_workers_of_a_slurm_step_stand_in_its_order_with_the_gpus_that_they_see(gpus, monkeypatch):
    names = {"PROCID": "2", "JOB_ID": "4203", "STEP_NODELIST": "n[9-10]", "STEP_TASKS_PER_NODE": "2(x2)"}
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind] * gpus)
    resolver = worker_resolver()
    assert resolver.cluster_spec().as_dict() == {"worker": ["n9:10300", "n9:10301", "n10:10300", "n10:10301"]}
    assert (resolver.task_type, resolver.task_id, resolver.rpc_layer) == ("worker", 2, "grpc")
    assert resolver.num_accelerators() == {"GPU": gpus}
    monkeypatch.setenv("SLURM_STEP_NODELIST", "r[1-2]n[3-4]")
    with pytest.raises(MachineError, match=r"SLURM_STEP_NODELIST='r\[1-2\]n\[3-4\]'.*; set TF_CONFIG$"):
        worker_resolver()


def test_replicas_draw_dropout_masks_of_their_own(two_replicas):
    width = 64
    with two_replicas.scope():
        x = inputs = keras.Input((width,))
        x = keras.layers.Dropout(0.5, seed=1)(x)
        network = keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="zeros", name="logits")(x))
        step = Step(network, normalise=lambda x: x, loss=LOSSES["cross_entropy"](), num_classes=2)
        step.begin(keras.optimizers.SGD(1.0))
        step.steps_left = 1
    step.fit(tf.data.Dataset.from_tensors((tf.ones((2, width)), [0, 0], [1.0, 1.0])), steps_per_epoch=1, verbose=0)
    # A kernel's row has moved as often as its input was kept: by none of the two replicas, by one, or by both.
    assert len(np.unique(network.get_weights()[0][:, 0].round(4))) == 3


def test_random_states_of_replicas_are_equal_again_after_the_step(two_replicas):
    with two_replicas.scope():
        layer = keras.layers.Dropout(0.5, seed=7)
        state = layer.seed_generator.state

    @tf.function
    def draw():
        def in_replica():
            with own_randomness([layer]) as updates:
                kept = layer(tf.ones((1, 64)), training=True)
            updates()
            return kept, state.value * 1

        return two_replicas.run(in_replica)

    first, second = draw(), draw()
    local = two_replicas.experimental_local_results
    assert not np.array_equal(*[m.numpy() for m in local(first[0])])
    assert not np.array_equal(local(first[0])[0].numpy(), local(second[0])[0].numpy())
    assert [s.numpy().tolist() for s in local(second[1])] == [[7, 2], [7, 2]]
