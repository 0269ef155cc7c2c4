"""The C runtime and the Python runtime: the same answers, the same errors."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from apps import savedmodel
from apps.native import library_path
from apps.pruning import pruned
from apps.signatures import ModelError, one_line, read_signatures

ROOT = Path(__file__).resolve().parents[2]
needs_library = pytest.mark.skipif(library_path() is None, reason="this wheel of TensorFlow has no native library")
RUNTIMES = [pytest.param("c", marks=needs_library), "python"]


class Everything(tf.Module):
    """Takes and gives every dtype that the runtimes know, and a scalar."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="text"),
            tf.TensorSpec([None, 2], tf.float32, name="real"),
            tf.TensorSpec([], tf.int64, name="count"),
            tf.TensorSpec([None], tf.bool, name="flag"),
        ]
    )
    def mix(self, text, real, count, flag):
        tf.debugging.assert_less(count, tf.constant(100, tf.int64), message="too many")
        return {
            "text": tf.strings.join([text, text]),
            "real": real * 2,
            "whole": tf.cast(real, tf.int32),
            "byte": tf.cast(real, tf.uint8),
            "flag": ~flag,
            "count": count + 1,
            "empty": text[:0],
        }


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    module = Everything()
    tf.saved_model.save(module, str(folder / "2"), signatures={"mix": module.mix})
    return folder


INPUTS = {"text": [b"", b"a\0b", "é" * 40], "real": [[1.5, 2.5]], "count": 3, "flag": [True, False]}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_dtype_goes_in_and_out(everything, runtime):
    model = savedmodel.load(everything, runtime)
    assert model.runtime == runtime
    for _ in range(3):
        outputs = model.run("mix", INPUTS)
    assert outputs["text"].tolist() == [b"", b"a\0ba\0b", ("é" * 80).encode()]
    np.testing.assert_array_equal(outputs["real"], np.array([[3, 5]], np.float32))
    np.testing.assert_array_equal(outputs["flag"], [False, True])
    assert {key: (value.dtype.name, value.shape) for key, value in outputs.items()} == {
        "text": ("object", (3,)),
        "real": ("float32", (1, 2)),
        "whole": ("int32", (1, 2)),
        "byte": ("uint8", (1, 2)),
        "flag": ("bool", (2,)),
        "count": ("int64", ()),
        "empty": ("object", (0,)),
    }


class Several(tf.Module):
    """Signatures that share a variable, a file of words and a loop, and one that has them for itself."""

    def __init__(self, words):
        self.weight = tf.Variable([2.0, 3.0])
        start = tf.lookup.TextFileInitializer(
            str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        self.table = tf.lookup.StaticHashTable(start, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def twice(self, text):
        number = tf.cast(self.table.lookup(text), tf.float32)
        for _ in tf.range(3):
            number = number * self.weight[0]
        return {"number": number}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def thrice(self, text):
        number = tf.cast(self.table.lookup(text), tf.float32)
        while tf.reduce_max(number) < 1000:
            number = (number + 1) * self.weight[1]
        return {"number": number, "again": self.twice(text)["number"]}


@needs_library
def test_a_model_without_the_other_signatures_answers_the_same_and_is_smaller(tmp_path):
    (tmp_path / "words.txt").write_text("one\ntwo\nthree\n")
    module, folder, text = Several(tmp_path / "words.txt"), tmp_path / "model" / "1", [b"three", b"two", b"none"]
    tf.saved_model.save(module, str(folder), signatures={"twice": module.twice, "thrice": module.thrice})
    whole = savedmodel.load(folder, "c")
    for name in ("twice", "thrice"):
        with pruned(folder, whole.signatures, [name]) as smaller:
            assert (smaller / "saved_model.pb").stat().st_size < (folder / "saved_model.pb").stat().st_size
            assert set(read_signatures(smaller)) == {name}
        assert not smaller.exists()
        model = savedmodel.load(folder, "c", only=[name])
        for key, wanted in whole.run(name, {"text": text}).items():
            np.testing.assert_array_equal(model.run(name, {"text": text})[key], wanted)
    with pytest.raises(ModelError, match="'twice' was left out when the model was loaded"):
        model.run("twice", {"text": text})
    with pruned(folder, whole.signatures, ["twice", "thrice"]) as same:
        assert same == folder


@needs_library
def test_what_two_signatures_of_a_graph_share_stays(tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        y = tf.linalg.matmul(x, v1.get_variable("w", initializer=[[1.0], [2.0]]), name="y")
        signatures = {
            "plain": v1.saved_model.predict_signature_def({"x": x}, {"y": y}),
            "more": v1.saved_model.predict_signature_def({"x": x}, {"z": tf.exp(y)}),
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(tmp_path / "1"))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    for name, key, wanted in (("plain", "y", 3.0), ("more", "z", np.exp(3.0))):
        model = savedmodel.load(tmp_path, "c", only=[name])
        np.testing.assert_allclose(model.run(name, {"x": [[1.0, 1.0]]})[key], [[wanted]], rtol=1e-5)


@needs_library
def test_a_model_without_weights_is_told_by_its_own_name(models, tmp_path):
    shutil.copytree(models / "colours", tmp_path / "model")
    for file in (tmp_path / "model").rglob("variables.data*"):
        file.unlink()
    with pytest.raises(ModelError, match=f"^{tmp_path}/model/.*: cannot be loaded: (?!.*savedmodel-)"):
        savedmodel.load(tmp_path / "model", "c", only=["serving_default"])


@needs_library
def test_both_runtimes_answer_alike(models, pictures):
    images = [(pictures / name).read_bytes() for name in ("blue.png", "red.jpg")]
    fast, plain = (savedmodel.load(models / "colours", runtime) for runtime in ("c", "python"))
    unoptimised = savedmodel.load(models / "colours", "c", optimise=False, threads=1)
    assert fast.signatures == plain.signatures
    for value in (images, images[:1], []):
        wanted = plain.run("serving_default", {"image": value})
        for model in (fast, unoptimised):
            found = model.run("serving_default", {"image": value})
            np.testing.assert_array_equal(found["label"], wanted["label"])
            np.testing.assert_allclose(found["probability"], wanted["probability"], atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("signature", "changes", "message"),
    [
        ("mix", {"count": 100}, "too many"),
        ("mix", {"count": "x"}, "count must be int64"),
        ("mix", {"count": np.array(2**64 - 1, np.uint64)}, "count has numbers that int64 does not hold"),
        ("mix", {"real": [1.0]}, r"real must have the shape \(any, 2\), not \(1,\)"),
        ("mix", {"real": [[1.0], [1.0, 2.0]]}, "real: its rows have different lengths"),
        ("mix", {"text": [3]}, "holds bytes or str, not int"),
        ("mix", {"text": ["\ud800"]}, "holds half a character"),
        ("mix", {"more": 1}, "mix takes count, flag, real, text, not"),
        ("mux", {}, "'mux' is not one of mix"),
    ],
)
def test_wrong_input_is_named_in_one_line(everything, runtime, signature, changes, message):
    with pytest.raises(ModelError, match=message) as caught:
        savedmodel.load(everything, runtime).run(signature, INPUTS | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["photos [2024]", "back\\slash", os.fsdecode(b"caf\xe9")])
def test_a_model_in_a_folder_of_any_name_is_loaded(models, tmp_path, runtime, name):
    model = shutil.copytree(models / "colours", tmp_path / name / "colours")
    for only in ((), ("logits",)):
        assert savedmodel.load(model, runtime, only=only).runtime == runtime
    (model / "1" / "variables" / "variables.data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match=re.escape(f"{model}/1: cannot be loaded")):
        savedmodel.load(model, runtime)


def test_signatures_are_read_without_tensorflow(everything):
    signature = read_signatures(everything / "2")["mix"]
    assert {key: (t.dtype, t.shape) for key, t in signature.inputs.items()} == {
        "text": ("string", (None,)),
        "real": ("float32", (None, 2)),
        "count": ("int64", ()),
        "flag": ("bool", (None,)),
    }


def test_the_highest_version_is_taken(everything, tmp_path):
    for version in ("9", "10", "notes"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "saved_model.pb").touch()
    assert savedmodel.version_directory(tmp_path).name == "10"
    assert savedmodel.version_directory(everything / "2") == everything / "2"


NAMELESS = b"\x12\x0d\x0a\x0b\x12\x02\x0a\x00\x22\x05serve"  # a graph whose only operation has no name


@pytest.mark.parametrize("content", [b"nonsense", b"", b"\x0a\xff", b"\xff" * 2**20, b"\x12\x02\x0a\x00", NAMELESS])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ModelError, match=r"saved_model\.pb: (damaged|holds no graph)"):
        read_signatures(tmp_path)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("lost", ["variables.index", "variables.data-00000-of-00001"])
def test_lost_variables_are_an_error_in_one_line(models, tmp_path, runtime, lost):
    shutil.copytree(models / "colours" / "1", tmp_path / "1")
    (tmp_path / "1" / "variables" / lost).unlink()
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        savedmodel.load(tmp_path, runtime)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_or_is_being_written_is_no_model(everything, tmp_path, monkeypatch):
    shutil.copytree(everything, tmp_path / "mine")
    shutil.copytree(everything, tmp_path / ".mine-x1.part")
    (tmp_path / "theirs").mkdir()
    is_file = Path.is_file

    def refused(path):
        if "theirs" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    monkeypatch.setenv("BIGKERAS_MODELS", str(tmp_path))
    assert savedmodel.find_model("mine") == tmp_path / "mine"
    with pytest.raises(ModelError, match="mine") as told:
        savedmodel.find_model("theirs")
    assert ".part" not in str(told.value)


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(ModelError, match="no SavedModel here"):
        savedmodel.load(tmp_path)
    with pytest.raises(ValueError, match="'rust' is not one of auto, c, python"):
        savedmodel.load(tmp_path, "rust")


def test_the_directory_of_a_run_is_told_from_a_model(tmp_path):
    (tmp_path / "recipe.json").touch()
    with pytest.raises(ModelError, match=f"the directory of a run: bigkeras export {tmp_path} DIR"):
        savedmodel.find_model(str(tmp_path))


@needs_library
def test_a_model_that_is_closed_says_so(everything):
    model = savedmodel.load(everything, "c")
    model.close()
    with pytest.raises(ModelError, match="the model is closed"):
        model.run(next(iter(model.signatures)), {})


def test_numpy_is_imported_only_when_a_model_is_loaded():
    code = "import sys; from apps import savedmodel; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@needs_library
def test_a_library_that_cannot_be_opened_is_named(everything, tmp_path, monkeypatch):
    broken = tmp_path / "libtensorflow_cc.so.2"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr("apps.native.library_path", lambda: broken)
    with pytest.raises(ModelError, match=f"^{broken}: cannot be loaded: "):
        savedmodel.load(everything, "c")
    monkeypatch.setattr("apps.native.library_path", lambda: None)
    with pytest.raises(ModelError, match="native library, which is not here: use --runtime python"):
        savedmodel.load(everything, "c")


@needs_library
def test_the_c_runtime_imports_no_tensorflow(models):
    code = (
        "import sys; from apps import savedmodel; "
        f"model = savedmodel.load({str(models / 'colours')!r}); model.run('serving_default', {{'image': []}}); "
        "print(model.runtime, sorted(m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'keras', 'bigkeras')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "c []\n"
    assert done.stderr == ""


@needs_library
@pytest.mark.parametrize(("model", "signature"), [("sentiment-en", "serving_default"), ("translate-en-de", "greedy")])
def test_the_c_runtime_imports_no_tensorflow_for_texts_either(model, signature):
    code = (
        "import sys; from apps import savedmodel; "
        f"model = savedmodel.load({str(ROOT / 'saved_models' / model)!r}); "
        f"model.run({signature!r}, {{'text': [b'Good morning!']}}); "
        "print(model.runtime, sorted({m.split('.')[0] for m in sys.modules} & "
        "{'tensorflow', 'tensorflow_text', 'keras', 'bigkeras'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "c []\n"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("{{function_node __inference_x_1}} Bad data\n\t [[{{node y}}]]", "Bad data"),
        ("2 root error(s) found.\n  (0) INVALID_ARGUMENT: {{function_node f}} Bad\n\t [[a]]\n  (1) x", "Bad"),
        ("assertion failed: [the picture is cut]", "the picture is cut"),
        (
            "Graph execution error:\n\nDetected at node x defined at (most recent call last):\n"
            "<stack traces unavailable>\nassertion failed: [cut] [x]\n\t [[{{node x}}]] [Op:f]",
            "cut",
        ),
    ],
)
def test_messages_of_tensorflow_become_one_line(message, line):
    assert one_line(message) == line
