"""Artifacts that translate: strings in, translated strings out, in both loaders; and the app that uses nothing else."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from apps import translation
from apps.native import library_path
from apps.sentences import joined
from apps.signatures import ModelError, Signature, Tensor, read_signatures
from bigkeras import translation_artifact
from bigkeras.artifact import export
from bigkeras.data.cleaning import Pair
from bigkeras.data.pair_splits import pair_splits
from bigkeras.models import MODELS
from bigkeras.parity import ExportError, session_loader
from bigkeras.recipe import Choice, Recipe
from bigkeras.tasks import TASKS
from bigkeras.translation_artifact import export_translator
from bigkeras.translator import Translator
from bigkeras.warmup import FILE

ROOT = Path(__file__).resolve().parents[1]

WORDS = ["one", "two", "red", "green", "cat", "dog", "sees", "likes", "the", "house"]
TEXTS = [b"the red cat", b"", b"one dog sees two green cats", "Ünïcode 猫 😀 \0 \xff".encode()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An untrained translator, its preprocessor, its exported folder and the export's report."""
    draw = np.random.default_rng(0)
    sources = [" ".join(draw.choice(WORDS, 6)) for _ in range(200)]
    pairs = [Pair(str(i), text, text.upper() + "!") for i, text in enumerate(sources)]
    splits = pair_splits(pairs, ("en", "de"), origin="toy", validation=0, test=0, seed=0, limit_train=None)
    task = TASKS["translation"](splits, vocabulary_size=320, length=24, beam=2, joint=False, coverage_penalty=0.1)
    keras.utils.set_random_seed(1)
    model = MODELS["transformer_translator"](
        **task.model_arguments, depth=1, width=16, num_heads=2, feed_forward=32, dropout=0.0
    )
    directory = tmp_path_factory.mktemp("models") / "toy"
    report = export_translator(model, task.preprocessor, directory, examples=[s.encode() for s in sources[:20]])
    return model, task.preprocessor, directory, report


@pytest.fixture(scope="module")
def loaded(made):
    return tf.saved_model.load(str(made[2] / "1"))


def test_the_export_compared_both_loaders_with_the_keras_model(made):
    _, _, directory, report = made
    assert set(report["agreement"]) == {
        "python serving_default", "python compiled", "session serving_default", "session compiled",
    }  # fmt: skip
    assert min(report["agreement"].values()) >= 0.99
    for place in (directory, directory / "1" / "assets.extra"):  # who copies 1/ alone has it, too
        assert json.loads((place / "preprocessor.json").read_text())["languages"] == ["en", "de"]
    assert made[1].coverage_penalty == 0.1


def test_an_exported_model_is_written_anew_with_its_own_weights_and_card(made, tmp_path):
    _, _, directory, _ = made
    older = shutil.copytree(directory, tmp_path / "older")
    sizes = {"depth": 1, "width": 16, "num_heads": 2, "feed_forward": 32, "dropout": 0.0}
    recipe = Recipe(
        name="toy", data=Choice("translation_pairs"), task=Choice("translation", {"beam": 2}),
        model=Choice("transformer_translator", sizes), monitor="val_bleu",
    )  # fmt: skip
    recipe.save(older / "recipe.json")
    (older / "README.md").write_text("# toy\n")
    with pytest.raises(ExportError, match=r"an exported model: .*, or examples: of texts --examples"):
        export(older, tmp_path / "anew")
    report = export(older, tmp_path / "anew", examples=[b"the red cat", b"one dog"], beam=3, warm_compiled=(1,))
    assert json.loads((tmp_path / "anew" / "preprocessor.json").read_text())["beam"] == 3
    requests = (tmp_path / "anew" / "1" / FILE).read_bytes()
    assert b"compiled" in requests and b"compiled" not in (directory / "1" / FILE).read_bytes()
    n_best = read_signatures(tmp_path / "anew" / "1")["n_best"].outputs["translation"]
    assert n_best.shape == (None, 3)
    card = (tmp_path / "anew" / "README.md").read_text()
    assert card.startswith("# toy\n") and "follows 3 hypotheses: the scores above are of a search with 2" in card
    # The scores are of the recipe's search, however often a model is exported with others.
    (tmp_path / "anew" / "recipe.json").write_bytes((older / "recipe.json").read_bytes())
    export(tmp_path / "anew", tmp_path / "back", examples=[b"one dog"], beam=2)
    assert "hypotheses" not in (tmp_path / "back" / "README.md").read_text()
    assert min(report["agreement"].values()) == 1
    data = "1/variables/variables.data-00000-of-00001"
    assert (tmp_path / "anew" / data).read_bytes() == (older / data).read_bytes()


def test_the_artifact_translates_as_the_keras_model_and_an_empty_text_stays_empty(made, loaded):
    model, preprocessor, _, _ = made
    found = loaded.signatures["serving_default"](text=tf.constant(TEXTS))["translation"].numpy()
    assert [text.decode() for text in found] == Translator(model, preprocessor)(TEXTS)
    assert found[1] == b""


@pytest.mark.parametrize(("cell", "attention"), [("gru", "additive"), ("lstm", "multiplicative")])
def test_recurrent_translators_are_exported_with_all_signatures(made, cell, attention, tmp_path):
    _, preprocessor, _, _ = made
    source, target = preprocessor.vocabulary_sizes()
    keras.utils.set_random_seed(1)
    model = MODELS["seq2seq_rnn"](
        vocabulary_size=source, target_vocabulary_size=target, length=24, cell=cell, attention=attention, units=16,
        embedding_width=16, dropout=0.0,
    )  # fmt: skip
    examples = [b"the red cat", b"one dog sees two green cats"] * 4
    card = {"README.md": "/data/caf\udce9/pairs.tsv"}  # a folder's name that is no UTF-8
    report = export_translator(model, preprocessor, tmp_path / "toy", examples=examples, files=card)
    assert (tmp_path / "toy" / "README.md").read_text() == "/data/caf\\udce9/pairs.tsv"
    assert min(report["agreement"].values()) >= 0.99
    signatures = tf.saved_model.load(str(tmp_path / "toy" / "1")).signatures
    assert set(signatures) >= {"serving_default", "greedy", "compiled", "n_best", "attention"}
    found = signatures["serving_default"](text=tf.constant(TEXTS))["translation"].numpy()
    assert [text.decode() for text in found] == Translator(model, preprocessor)(TEXTS)


@pytest.mark.parametrize("texts", [2, 1])
def test_an_export_that_translates_otherwise_is_refused_and_leaves_nothing(made, texts, monkeypatch, tmp_path):
    class Other(Translator):
        """Says something else of so many texts at a time."""

        def __call__(self, given):
            return ["something else"] * texts if len(given) == texts else super().__call__(given)

    monkeypatch.setattr(translation_artifact, "Translator", Other)
    with pytest.raises(ExportError, match="'the red cat'.* as by the Keras model" if texts == 1 else "the red cat"):
        export_translator(made[0], made[1], tmp_path / "toy", examples=[b"the red cat", b"one dog"])
    assert not list(tmp_path.iterdir())


def test_no_signature_but_the_compiled_one_asks_for_xla(made):
    _, _, directory, _ = made
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((directory / "1" / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    functions = {f.signature.name: f for f in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    for name, signature in saved.meta_graphs[0].signature_def.items():
        outputs = list(signature.outputs.values())
        if name.startswith("__") or name == "compiled":
            continue
        seen, todo = set(), [nodes[outputs[0].name.split(":")[0]]]
        while todo:
            node = todo.pop()
            assert not node.op.startswith("Xla") and not node.attr["_XlaMustCompile"].b, (name, node.op)
            called = [v.func.name for v in node.attr.values()] + [
                f.name for v in node.attr.values() for f in v.list.func
            ]
            for function in set(called) & set(functions) - seen:
                seen.add(function)
                todo += functions[function].node_def


@pytest.mark.parametrize("signature", ["serving_default", "greedy", "n_best", "compiled", "attention"])
def test_the_longest_text_is_bounded(made, loaded, signature):
    asked = {"text": tf.constant([b"cat " * 5000])}
    if signature == "n_best":
        asked["length_penalty"] = tf.constant(0.0)
    found = loaded.signatures[signature](**asked)["translation"].numpy().ravel()
    # Not the task's own tokenizer, which would cut them. A piece that is a byte of no character is written as U+FFFD.
    pieces = sentencepiece.SentencePieceProcessor(model_proto=made[1].target_model)
    texts = [text.decode() for text in found]
    counts = [len(pieces.encode(text.replace("\ufffd", ""))) + text.count("\ufffd") for text in texts]
    assert min(counts) > 0 and max(counts) <= 2 * 24


@pytest.mark.slow
@pytest.mark.skipif(library_path() is None, reason="this wheel of TensorFlow has no native library")
def test_memory_does_not_grow_with_the_file(made, tmp_path):
    # The peak of a process' child is at least its own: so a small one starts the app, not the one that tests.
    peak = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    peaks = []
    for times in (200, 6000):
        (tmp_path / "in.txt").write_text(("one dog\n" + "\n" * 49) * times)
        app = [sys.executable, "-m", "apps.translation", "--model", str(made[2]), "--runtime", "c"]
        done = subprocess.run(
            [sys.executable, "-c", peak, *app, "--file", "in.txt", "--output", "out.txt"], cwd=tmp_path, check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        )  # fmt: skip
        assert sum(1 for _ in (tmp_path / "out.txt").open()) == 50 * times
        peaks.append(float(done.stdout))  # MB
    assert peaks[1] - peaks[0] < 50


def test_n_best_are_sorted_and_the_length_penalty_counts(loaded):
    ask = loaded.signatures["n_best"]
    plain, long = (ask(text=tf.constant(TEXTS[:1]), length_penalty=tf.constant(x)) for x in (0.0, 2.0))
    assert plain["translation"].shape == (1, 2) and plain["score"][0, 0] >= plain["score"][0, 1]
    assert plain["score"][0, 0] < long["score"][0, 0] < 0


def test_attention_adds_up_to_one_for_every_piece_written(loaded):
    found = loaded.signatures["attention"](text=tf.constant(TEXTS))
    written = found["target_piece"].numpy() != b""
    sums = found["weight"].numpy().sum(-1)
    assert found["weight"].shape == (*found["target_piece"].shape, found["source_piece"].shape[1])
    np.testing.assert_allclose(sums[written], 1.0, atol=1e-5)
    np.testing.assert_allclose(sums[~written], 0.0)
    assert (found["source_piece"].numpy() != b"").any(0).all() and written.any(0).all()  # none that only fill
    assert not written[TEXTS.index(b"")].any()
    alone = loaded.signatures["attention"](text=tf.constant([b"", b"  "]))
    assert alone["target_piece"].numpy().tolist() == [[b""], [b""]] and not alone["weight"].numpy().any()


def test_an_empty_batch_has_no_answers(made):
    with session_loader(made[2] / "1") as run:
        for signature in ("serving_default", "compiled", "attention"):
            assert run(signature, "text", np.array([], object))["translation"].shape == (0,)


def app(*arguments, stdin=b"", monkeypatch=None, capsys=None):
    if monkeypatch:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    status = translation.main(list(map(str, arguments)))
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_app_gives_a_line_for_every_line_and_keeps_the_order(made, loaded, monkeypatch, capsys):
    lines = [b"one dog", b"", b"the red cat sees the house", b"  ", b"two"]
    status, out, _ = app(
        "-", "--model", made[2], "--runtime", "python", "--batch", 2,
        stdin=b"\n".join(lines) + b"\n", monkeypatch=monkeypatch, capsys=capsys,
    )  # fmt: skip
    wanted = Translator(made[0], made[1])(lines)
    assert status == 0 and out.split("\n") == [" ".join(text.splitlines()) for text in wanted] + [""]


def test_the_best_of_a_text_are_those_that_its_sentences_make_together():
    parts = [translation.Answer([("A.", -1.0), ("B.", -2.0)]), translation.Answer([("c.", -1.0), ("d.", -4.0)])]
    together = [translation._together(parts, most) for most in (4, 3, 1)]
    assert [text for text, _ in together[0].translations] == ["A. c.", "B. c.", "A. d.", "B. d."]
    assert [len(answer.translations) for answer in together] == [4, 3, 1]
    assert translation._together(parts, 1).translations == [("A. c.", -2.0)]


def test_the_app_says_that_it_takes_a_table_for_lines(made, tmp_path, capsys):
    (tmp_path / "t.csv").write_text('1,"one dog"\n')
    status, out, told = app("--file", tmp_path / "t.csv", "--model", made[2], "--runtime", "python", capsys=capsys)
    assert status == 0 and out.count("\n") == 1
    assert "t.csv: taken for a text a line, and not for a table" in told


def test_the_app_tells_wrong_options_before_it_reads_standard_input(made, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=None))  # nothing can be read of it
    status = translation.main(["-", "--model", str(made[2]), "--runtime", "python", "--beam", "17"])
    assert status != 0 and "--beam 17" in capsys.readouterr().err


@pytest.mark.parametrize("runtime", ["c", "python"])
def test_the_app_translates_side_by_side_as_one_after_the_other(made, runtime, tmp_path, capsys):
    if runtime == "c" and library_path() is None:
        pytest.skip("this wheel of TensorFlow has no native library")
    draw = np.random.default_rng(1)
    lines = ["", *(" ".join(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(40))]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    told = []
    for threads in (1, 3):
        common = ("--file", tmp_path / "in.txt", "--model", made[2], "--runtime", runtime, "--batch", 4)
        status, out, _ = app(*common, "--threads", threads, capsys=capsys)
        assert status == 0
        told.append(out.splitlines())
    assert told[0] == told[1] and len(told[0]) == len(lines)


@pytest.mark.parametrize("runtime", ["c", "python"])
def test_the_app_parts_a_paragraph_and_puts_it_together_by_either_runtime(made, runtime, capsys):
    if runtime == "c" and library_path() is None:
        pytest.skip("this wheel of TensorFlow has no native library")
    status, out, err = app("The red cat. One dog!", "--model", made[2], "--runtime", runtime, capsys=capsys)
    assert (status, err) == (0, f"runtime: {runtime}\n")
    wanted = Translator(made[0], made[1])([b"The red cat.", b"One dog!"])
    assert out == joined([" ".join(text.splitlines()) for text in wanted]) + "\n"


class Asked:
    """A model of which the app sees what it is asked for."""

    def __init__(self, *signatures):
        self.signatures = {name: Signature({"text": None}, {"translation": Tensor("", "string", (None, 2))})
                           for name in signatures}  # fmt: skip


@pytest.mark.parametrize("inside", [True, False])
def test_the_app_searches_as_the_models_own_preprocessor_says(tmp_path, inside):
    (tmp_path / "1" / "assets.extra").mkdir(parents=True)
    (tmp_path / "1" / "saved_model.pb").touch()
    told = {"length": 24, "beam": 1, "length_penalty": 0.6}
    (tmp_path / ("1/assets.extra" if inside else "") / "preprocessor.json").write_text(json.dumps(told))

    def settled(*arguments):
        return translation._settled(translation._parser().parse_args(["one", *arguments]), tmp_path)

    model = Asked("serving_default", "greedy", "n_best")
    assert (settled().longest, settled("--n-best", "2").length_penalty) == (69, 0.6)
    assert settled("--n-best", "2", "--length-penalty", "2").length_penalty == 2.0
    translation._check_beams(model, settled("--n-best", "2"))
    translation._check_beams(model, settled("--beam", "1"))
    with pytest.raises(ModelError, match=r"--beam 2: this model searches with 1$"):
        translation._check_beams(model, settled("--beam", "2"))


@pytest.mark.parametrize("runtime", ["c", "python"])
def test_the_app_tells_the_n_best_as_json_and_draws_attention(made, runtime, capsys, tmp_path):
    if runtime == "c" and library_path() is None:
        pytest.skip("this wheel of TensorFlow has no native library")
    picture = tmp_path / "a.png"
    common = ("the red cat", "--model", made[2], "--runtime", runtime)
    status, out, _ = app(*common, "--n-best", 2, "--json", capsys=capsys)
    told = json.loads(out)
    assert status == 0 and len(told["n_best"]) == 2 and told["translation"] == told["n_best"][0]["translation"]
    blank = (" ", *common[1:], "--n-best", 2)
    told = json.loads(app(*blank, "--json", capsys=capsys)[1])
    assert told == {"text": " ", "translation": "", "n_best": [{"translation": "", "score": 0.0}]}
    assert app(*blank, capsys=capsys)[1] == "1\t0.0000\t\n"
    status, _, _ = app(*common, "--attention", picture, capsys=capsys)
    assert status == 0 and picture.read_bytes().startswith(b"\x89PNG")
    greedy = tf.saved_model.load(str(made[2] / "1")).signatures["greedy"](text=tf.constant(["the red cat"]))
    status, out, _ = app(*common, "--beam", 1, capsys=capsys)
    assert status == 0 and out.splitlines() == [text.decode() for text in greedy["translation"].numpy()]


def test_the_app_gives_a_line_for_whatever_a_line_holds(made, tmp_path, capsys):
    lines = [b"word " * 5000, "😀 e\u0301 مرحبا 猫".encode(), b"one\0dog", b"\xff\xfe broken \xc3", b"", b"x" * 3000]
    (tmp_path / "in.txt").write_bytes(b"\n".join(lines))
    common = ("--model", made[2], "--runtime", "c" if library_path() else "python", "--json")
    status, out, _ = app("--file", tmp_path / "in.txt", "--encoding", "utf-8", *common, capsys=capsys)
    told = [json.loads(line)["translation"] for line in out.splitlines()]
    assert status == 0 and len(told) == len(lines) and told[4] == ""
    (tmp_path / "in.txt").write_bytes(b"")
    status, out, err = app("--file", tmp_path / "in.txt", *common, capsys=capsys)
    assert (status, out) == (0, "") and f"{tmp_path / 'in.txt'}: holds no text\n" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("x", "--beam", "7"), "--beam 7: this model searches with 1 or 2"),
        (("x", "--n-best", "3"), "--n-best 3: this model gives 2"),
        (("--file", "missing.txt"), "missing.txt: cannot be read"),
        (("Two cats. One dog.", "--attention", "a.png"), "--attention draws one sentence"),
        (("the red cat, " * 8, "--attention", "a.png"), "--attention draws one sentence"),
    ],
)
def test_what_the_app_cannot_do_is_one_line(made, arguments, message, capsys):
    status, out, err = app(*arguments, "--model", made[2], "--runtime", "python", capsys=capsys)
    assert status == 1 and not out and message in err and "Traceback" not in err


def test_half_a_character_of_an_encoding_that_has_such_is_a_question_mark(made, tmp_path, capsys):
    (tmp_path / "in.txt").write_bytes(b"the +2AA- cat\n")
    status, out, _ = app(
        "--file", tmp_path / "in.txt", "--encoding", "utf-7", "--json", "--model", made[2], "--runtime", "python",
        capsys=capsys,
    )  # fmt: skip
    assert status == 0 and json.loads(out)["text"] == "the ? cat"


def test_a_length_penalty_that_nothing_would_heed_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        translation.main(["x", "--length-penalty", "2"])
    assert stopped.value.code == 2 and "--length-penalty goes with --n-best" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        translation.main(["one", "--beam", "1", "--attention", "a.png"])
    assert "--attention is of the model's own translation" in capsys.readouterr().err


def test_the_app_tells_a_translation_once_however_the_model_cut_it_up():
    class Model:
        def run(self, signature, inputs):
            assert (signature, inputs["length_penalty"]) == ("n_best", 1.0)
            return {"translation": [[b"eins", b"zwei", b"eins", b"drei"]], "score": [[-1.0, -2.0, -3.0, -1e9]]}

    options = translation._parser().parse_args(["one", "--n-best", "3", "--length-penalty", "1"])
    (answer,) = translation._run(Model(), [b"one"], options)
    assert answer.translations == [("eins", -1.0), ("zwei", -2.0)]
