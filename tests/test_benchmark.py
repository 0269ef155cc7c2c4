"""The benchmark: its statistics, a small run without PyTorch, and that the peers are the same models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import text_contenders, train_image, train_text
from benchmarks.comparison import markdown, parse, summary
from benchmarks.contenders import CLASSES, WORKLOADS, examples, stock_model
from benchmarks.interleave import Worker, WorkerError, ratio_interval, rounds

ROOT = Path(__file__).resolve().parents[1]


def test_the_ratio_is_that_of_the_medians_and_lies_in_its_interval():
    random = np.random.default_rng(1)
    times, reference = random.normal(3, 0.1, 30), random.normal(2, 0.1, 30)
    ratio, low, high = ratio_interval(times, reference)
    assert ratio == np.median(times) / np.median(reference)
    assert low < ratio < high
    assert low < 1.5 < high


def test_what_disturbs_whole_rounds_leaves_the_ratio():
    slower = np.array([1.0, 5.0, 1.0, 2.0, 9.0, 1.0, 3.0])
    assert np.allclose(ratio_interval(1.25 * slower, slower), 1.25)


def test_the_interval_narrows_with_more_rounds_and_is_the_same_again():
    random = np.random.default_rng(2)
    times, reference = random.normal(1, 0.1, (2, 200))
    _, low, high = ratio_interval(times[:10], reference[:10])
    _, closer_low, closer_high = ratio_interval(times, reference)
    assert closer_high - closer_low < high - low
    assert ratio_interval(times, reference, seed=3) == ratio_interval(times, reference, seed=3)


@pytest.mark.parametrize(("times", "reference"), [([], []), ([1.0, 2.0], [1.0])])
def test_rounds_that_do_not_pair_are_refused(times, reference):
    with pytest.raises(ValueError, match="as many of both"):
        ratio_interval(times, reference)


class Counting:
    """In the place of a worker: notes its turns."""

    def __init__(self, name: str, turns: list[str]):
        self.name, self.turns = name, turns

    def ask(self, steps: int) -> dict:
        self.turns.append(self.name)
        return {"seconds": 1.0}


def test_every_round_has_each_contender_once_and_starts_with_another():
    turns: list[str] = []
    answers = rounds({name: Counting(name, turns) for name in "abc"}, 4, 1)
    assert "".join(turns) == "abcbcacababc"
    assert {name: len(of) for name, of in answers.items()} == {"a": 4, "b": 4, "c": 4}


def test_real_input_is_charged_for_the_batches_of_its_next_turn():
    answer = {"seconds": 2.0, "settled": 3.0, "cpu_seconds": 4.0, "loss": 1.0, "peak_mb": 10.0}
    both = {"ours": [answer], "ours, real input": [answer]}
    found = summary(both, {"ours": 2.0, "ours, real input": 2.0}, steps=2)
    assert found["ours"]["median"] == 1.0
    assert found["ours, real input"]["median"] == 1.5
    assert found["ours, real input"]["times_ours"] == (1.5, 1.5, 1.5)


def test_a_worker_that_ends_says_why():
    worker = Worker("benchmarks.no_such_module", {}, {})
    with pytest.raises(WorkerError, match="no_such_module"):
        worker.answer()
    worker.close()


def test_unknown_models_are_named(capsys):
    with pytest.raises(SystemExit):
        parse(train_image.SUITE, ["--models", "lenet,alexnet"])
    assert "'alexnet' is not one of lenet" in capsys.readouterr().err


def test_examples_of_a_class_are_alike_and_always_the_same():
    images, labels = examples((8, 8, 1), 40)
    again, _ = examples((8, 8, 1), 40)
    assert images.dtype == np.uint8 and (images == again).all()
    assert set(labels) == set(range(CLASSES))
    means = np.array([images[labels == label].mean((0, 3)).ravel() for label in range(CLASSES)])
    apart = np.abs(means[:, None] - images.reshape(40, 1, 64).transpose(1, 0, 2)).mean(-1)
    assert (apart.argmin(0) == labels).all()


@pytest.mark.timeout(1500)  # seconds on a free machine, minutes beside a training
@pytest.mark.parametrize(
    ("suite", "models", "contenders"),
    [
        (train_image.SUITE, "tiny", ["ours", "ours, real input", "stock Keras"]),
        (train_text.SUITE, "tiny-lstm,tiny-encoder", ["ours", "stock Keras"]),
    ],
)
def test_a_small_run_learns_and_reports(suite, models, contenders, tmp_path):
    report = tmp_path / "report.json"
    module = f"benchmarks.{suite.program.replace('-', '_')}"
    command = [sys.executable, "-m", module, "--models", models, "--rounds", "2"]
    done = subprocess.run(
        [*command, "--without-pytorch", "--threads", "1", "--json", str(report)],
        cwd=ROOT / "scripts",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1400,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(report.read_text(encoding="utf-8"))
    for result in written["results"]:
        found = result["contenders"]
        assert list(found) == contenders
        assert all(len(values["seconds_per_step"]) == 2 for values in found.values())
        assert all(values["last_loss"] < values["first_loss"] for values in found.values())
    assert "\n".join(markdown(suite, written)) in done.stdout


@pytest.mark.parametrize("name", train_image.SUITE.defaults)
def test_the_models_in_pytorch_have_our_numbers_of_parameters(name):
    pytest.importorskip("torch", reason="PyTorch is installed by scripts/benchmark only")
    from benchmarks.pytorch_models import MODELS

    workload = WORKLOADS[name]
    theirs = MODELS[name](workload.shape, CLASSES).parameters()
    ours = stock_model(workload, "float32").trainable_variables
    assert sorted(p.numel() for p in theirs) == sorted(int(np.prod(v.shape)) for v in ours)


@pytest.mark.parametrize("name", train_text.SUITE.defaults)
def test_the_text_models_of_all_three_have_as_many_parameters(name):
    from bigkeras.models import MODELS

    workload = text_contenders.WORKLOADS[name]
    ours = MODELS[workload.model](**text_contenders.sizes(workload)).count_params()
    assert text_contenders.STOCK[workload.model](workload).count_params() == ours
    torch = pytest.importorskip("torch", reason="PyTorch is installed by scripts/benchmark only")
    from benchmarks.pytorch_texts import MODELS as THEIRS

    theirs = THEIRS[workload.model](workload.vocabulary, CLASSES, **workload.args)
    # PyTorch's LSTM has every bias twice.
    twice = [p for n, p in theirs.named_parameters() if n.startswith("layers.bias_hh")]
    assert sum(p.numel() for p in theirs.parameters()) - sum(p.numel() for p in twice) == ours
    assert torch.isfinite(theirs(torch.ones((2, 5), dtype=torch.int64))).all()


def test_the_stock_model_has_no_layer_of_ours_and_answers_the_same():
    import keras

    from bigkeras.models import MODELS

    workload = WORKLOADS["resnet20"]
    keras.utils.set_random_seed(0)
    stock = stock_model(workload, "float32")
    assert not [layer for layer in stock.layers if type(layer).__module__.startswith("bigkeras")]
    own = MODELS[workload.model](input_shape=workload.shape, num_classes=CLASSES, **workload.args)
    own.set_weights(stock.get_weights())
    images = np.random.default_rng(0).standard_normal((2, *workload.shape), np.float32)
    np.testing.assert_allclose(own(images), stock(images), rtol=1e-4, atol=1e-4)
