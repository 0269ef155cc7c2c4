"""The README in both languages: as many sections, and commands that are there."""

import re
from pathlib import Path

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
def test_what_a_readme_names_is_there(name):
    from bigkeras.recipes import RECIPES

    for recipe in set(re.findall(r"bigkeras train ([a-z][a-z0-9-]+)\b(?![./])", text(name))) - {"recipe"}:
        assert recipe in RECIPES, recipe
    for app in set(re.findall(r"python -m apps\.(\w+)", text(name))):
        assert (ROOT / "apps" / f"{app}.py").is_file(), app
    for path in set(re.findall(r"\./(scripts/\w+)|\]\(([\w./-]+)\)", text(name))):
        assert (ROOT / "".join(path)).exists(), path
