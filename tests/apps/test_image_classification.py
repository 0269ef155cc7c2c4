"""The app as its users run it: in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps.pictures import find

ROOT = Path(__file__).resolve().parents[2]


def app(*arguments, models, before='exec "$@"', **options):
    """The finished process of `python -m apps.image_classification`; `before`: what a shell does with its command."""
    environment = os.environ | {"BIGKERAS_MODELS": str(models), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "apps.image_classification", "--model", "colours", *map(str, arguments)]
    command = ["sh", "-c", before, "sh", *command]
    return subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, timeout=300, **options)


def answers(process):
    """(file name, best label or None) for each line of JSON."""
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    return [(Path(v["path"]).name, v["answers"][0]["label"] if "answers" in v else None) for v in lines]


def test_a_folder_is_searched_and_other_formats_are_read(models, pictures):
    done = app(pictures, "--json", models=models)
    assert answers(done) == [("blue.png", "blue"), ("red.jpg", "red"), ("ein 绿.tiff", "绿")]
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_table_has_the_best_answers_with_their_probabilities(models, pictures):
    done = app(pictures / "red.jpg", pictures / "nested", "--top", 2, models=models)
    first, second = done.stdout.decode().splitlines()
    assert first.split()[1] == "red"
    assert first.split()[2].endswith("%")
    assert len(first.split()) == 5
    assert "ein 绿.tiff" in second


def test_a_bad_picture_costs_the_others_nothing(models, pictures, tmp_path):
    (tmp_path / "cut.png").write_bytes((pictures / "blue.png").read_bytes()[:60])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    done = app(pictures / "blue.png", tmp_path, tmp_path / "gone.jpg", pictures / "red.jpg", "--json", models=models)
    assert answers(done) == [
        ("blue.png", "blue"), ("cut.png", None), ("empty.png", None), ("text.jpg", None), ("gone.jpg", None),
        ("red.jpg", "red"),
    ]  # fmt: skip
    assert done.returncode == 1
    complaints = done.stderr.decode().splitlines()
    assert [Path(line.partition(":")[0]).name for line in complaints] == [
        "cut.png",
        "empty.png",
        "text.jpg",
        "gone.jpg",
    ]
    assert "no such file" in complaints[-1]


def test_patterns_and_standard_input(models, pictures):
    with (pictures / "blue.png").open("rb") as file:
        done = app(f"{pictures}/**/*.tiff", "-", f"{pictures}/*.webp", "--json", models=models, stdin=file)
    assert answers(done) == [("ein 绿.tiff", "绿"), ("-", "blue"), ("*.webp", None)]
    assert done.stderr.decode().endswith("*.webp: no file matches\n")


def test_a_pattern_finds_every_picture_once(tmp_path):
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern in ("**", "**/*", "*"):
        found = [os.path.relpath(one.path, tmp_path) for one in find([str(tmp_path / pattern)])]
        assert sorted(found) == ["a.jpg", "sub/b.jpg", "sub/deep/c.jpg"]
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert len(list(find([str(tmp_path / "**")]))) == 3


def test_a_pattern_ends_where_several_links_lead_to_folders_above(tmp_path, monkeypatch):
    tmp_path = tmp_path / "pictures" / "mine"
    tmp_path.mkdir(parents=True)
    for folder in ("a", "b", "c", "[d]"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.jpg").touch()
        (tmp_path / folder / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a" / "circle")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "two.jpg").touch()
    monkeypatch.chdir(tmp_path)
    everything = {f"{folder}/one.jpg" for folder in ("a", "b", "c", "[d]")}
    for pattern in ("**/*.jpg", f"{tmp_path}/**/*.jpg", "**/**/one.*", "../*/**/*.jpg", "**//*.jpg", "**/"):
        found = [os.path.relpath(os.path.realpath(one.path), tmp_path) for one in find([pattern])]
        assert len(found) == 4 and set(found) == everything, pattern
    assert [one.path for one in find(["**/*.png"])] == ["**/*.png"]


def test_folders_that_are_links_are_followed_once(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "2020").symlink_to(tmp_path / "elsewhere")
    found = list(find([str(tmp_path / "photos")]))
    assert [(one.path, one.problem) for one in found] == [(str(tmp_path / "photos" / "2020" / "a.png"), "")]


def test_a_folder_without_pictures_says_so_at_once(models, tmp_path):
    done = app(tmp_path, models=models)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"{tmp_path}: no pictures in this folder\n"


def test_closed_streams(models, pictures):
    done = app("-", pictures / "red.jpg", "--json", models=models, before='exec "$@" <&-')
    assert answers(done) == [("-", None), ("red.jpg", "red")]
    assert b"standard input is closed" in done.stderr
    done = app(pictures / "red.jpg", models=models, before='exec "$@" >&-')
    assert (done.returncode, done.stderr) == (1, b"standard output is closed\n")
    done = app(pictures / "red.jpg", "--json", models=models, before='exec "$@" 2>&-')
    assert (done.returncode, answers(done)) == (0, [("red.jpg", "red")])


def test_a_reader_that_leaves_is_no_error_message(models, pictures):
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"BIGKERAS_MODELS": str(models)}
    command = [sys.executable, "-m", "apps.image_classification", "--model", "colours", str(pictures / "red.jpg")]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=writing, stderr=subprocess.PIPE, timeout=300)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_strange_names_stay_in_one_line(models, pictures, tmp_path):
    data = (pictures / "red.jpg").read_bytes()
    names = [b"a\nb.jpg", "снимок 写真.jpg".encode(), b"broken\xff.jpg"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(data)
    done = app(tmp_path, models=models)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
    lines = app(tmp_path, "--json", models=models).stdout.decode().splitlines()
    assert {os.fsencode(Path(json.loads(line)["path"]).name) for line in lines} == set(names)


def test_an_unknown_model_lists_those_there_are(models, pictures):
    done = app(pictures, "--model", "flowers", models=models)
    assert done.returncode == 2
    assert done.stderr.decode().startswith("--model flowers: neither a SavedModel's folder nor one of colours")


@pytest.mark.parametrize("wrong", [["--top", "0"], ["--batch", "x"], ["--runtime", "rust"], []])
def test_wrong_usage_is_status_2(models, wrong):
    done = app(*wrong, *(["x.jpg"] if wrong else []), models=models)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_the_script_runs_from_anywhere_and_names_its_runtime(models, pictures, tmp_path):
    script = ROOT / "apps" / "image_classification.py"
    command = [sys.executable, script, pictures / "red.jpg", "--model", models / "colours" / "1", "--runtime", "auto"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert done.stderr in ("runtime: c\n", "runtime: python\n")
    assert " red " in done.stdout


def test_help_loads_no_numpy():
    code = (
        "import sys, contextlib\nfrom apps.image_classification import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\nprint('loaded:', 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("loaded: False\n"), done.stderr


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "F", "P", "LA", "CMYK", "1"])
def test_other_formats_become_what_training_reads(mode):
    import io

    import numpy as np
    from PIL import Image

    from apps.pictures import to_png
    from bigkeras.data.decode import transcode

    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    elif mode == "I;16B":
        image = Image.frombytes(mode, (7, 5), (values[..., 0].astype(">u2") * 257).tobytes())
    elif mode == "F":
        image = Image.fromarray(values[..., 0].astype(np.float32))
    else:
        image = Image.fromarray(values).convert(mode)
    tiff = io.BytesIO()
    image.save(tiff, "TIFF")
    found, wanted = (
        Image.open(io.BytesIO(png)).convert("RGB") for png in (to_png(tiff.getvalue()), transcode(tiff.getvalue()))
    )
    if mode != "LA":  # the artifact lays transparent parts on white, as training's transcoder does here
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    assert found.size == wanted.size


def test_a_gigantic_picture_is_refused_by_its_header(tmp_path):
    from PIL import Image

    from apps.pictures import PictureError, read

    Image.new("1", (20000, 20000)).save(tmp_path / "huge.tiff", compression="group4")
    with pytest.raises(PictureError, match="pixels are too many: at most"):
        read(str(tmp_path / "huge.tiff"))
