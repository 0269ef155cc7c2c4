"""The README in both languages: as many sections, and commands that are there."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh-CN.md")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_both_languages_have_the_same_sections_and_recipes():
    sections = [re.findall(r"^## .*", text(name), re.M) for name in READMES]
    assert len(sections[0]) == len(sections[1]) == 9
    trained = [set(re.findall(r"bigkeras train ([a-z0-9-]+)", text(name))) for name in READMES]
    assert trained[1] == trained[0]


@pytest.mark.parametrize("name", READMES)
def test_the_python_of_a_readme_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", text(name), re.S)
    exec(compile(code.replace("epochs=5", "epochs=1"), name, "exec"), {})
    assert (tmp_path / "runs" / "two-layers" / "metrics.json").is_file()


def test_the_python_of_the_page_about_it_runs(tmp_path, monkeypatch):
    import keras

    import bigkeras

    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved_models").symlink_to(ROOT / "saved_models")
    keras.utils.save_img("photo.png", np.zeros((28, 28, 1)))
    asked = []
    metrics = {"validation": {"accuracy": 0.5}}
    monkeypatch.setattr(bigkeras, "fit", lambda recipe, run_dir: asked.append(recipe) or metrics, raising=False)
    blocks = re.findall(r"```python\n(.*?)```", text("docs/python.md"), re.S)
    assert len(blocks) == 3
    for code in blocks:
        exec(compile(code, "docs/python.md", "exec"), {})
    assert asked[0].data.args == {"directory": "my-photos"}


PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("name", [*READMES, *PAGES])
def test_commands_of_a_page_are_taken(name):
    from bigkeras.__main__ import make_parser
    from bigkeras.checks import check_recipe
    from bigkeras.recipe import parse_setting
    from bigkeras.recipe_data import with_data
    from bigkeras.recipes import RECIPES

    whole = text(name).replace("\\\n", " ")
    inline = re.findall(r"`(bigkeras \w[^`]*)`", whole)
    blocks = re.findall(r"^(?:\$ )?(bigkeras \w.*?)(?: #.*)?$", whole, re.M)
    commands = [" ".join(command.split()) for command in inline] + [c for c in blocks if "`" not in c]
    read = 0
    for command in commands:
        words = shlex.split(re.sub(r"[\[\]]", "", command))[1:]
        if len(words) < 2 or words[1] == "NAME" or "…" in words or "--help" in words:
            continue
        options = make_parser().parse_args(words)
        read += 1
        if words[0] == "train" and words[1] in RECIPES:
            recipe = RECIPES[words[1]].override(**dict(map(parse_setting, options.set)))
            if recipe.model.name != "auto":
                check_recipe(with_data(recipe, options.data))
    assert read > (30 if name in READMES else 5 if name in ("docs/results.md", "docs/texts.md") else -1)


@pytest.mark.parametrize("name", [*READMES, *PAGES])
def test_options_of_an_app_are_taken(name):
    whole = text(name).replace("\\\n", " ")
    commands = re.findall(r"(?<!`)`python -m (apps\.\w+ [^`]*)`", whole)
    commands += re.findall(r"^(?:\$ | +)?python -m (apps\.\w+ [^`\n|<>]*?)(?: +#.*)?$", whole, re.M)
    for command in commands:
        app, *words = shlex.split(re.sub(r"[\[\]]", "", command))
        if "--help" not in words and "…" not in words:
            importlib.import_module(app)._parser().parse_args(words)
    assert len(commands) > (6 if name in READMES else -1)


@pytest.mark.parametrize("name", READMES)
def test_what_a_readme_names_is_there(name):
    from bigkeras.recipes import RECIPES

    for recipe in set(re.findall(r"bigkeras train ([a-z][a-z0-9-]+)\b(?![./])", text(name))) - {"recipe"}:
        assert recipe in RECIPES, recipe
    for app in set(re.findall(r"python -m apps\.(\w+)", text(name))):
        assert (ROOT / "apps" / f"{app}.py").is_file(), app
    for path in set(re.findall(r"\./(scripts/\w+)|\]\(([\w./-]+)\)", text(name))):
        assert (ROOT / "".join(path)).exists(), path
