"""Who may import whom (docs/architecture.md), and that nothing imports TensorFlow before it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Any part may import these two.
COMMON = {"recipe", "data"}
TOP = {path.stem for path in (ROOT / "bigkeras").glob("*.py")} | {
    path.parent.name for path in (ROOT / "bigkeras").glob("*/__init__.py")
}
# What a part may import beside itself and COMMON; a part that is not here may import all but these three.
ENDS = {"recipes", "doctor", "commands", "__main__"}
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "recipe": set(),
    "data": set(),
    "layers": set(),
    "runtime": set(),
    "gpus": set(),
    "decoding": {"decoding_loop"},
    "decoding_loop": set(),
    "launch": {"gpus"},
    "layouts": {"runtime"},
    "replicas": set(),
    "strategies": {"runtime"},
    "workers": set(),
    "metrics": set(),
    "translation_metrics": set(),
    "pictures": {"metrics"},
    "warmup": set(),
    "models": {"layers"},
    "remarks": set(),
    "tasks": {"remarks"},
    "recipes": set(),
    "doctor": {"gpus", "remarks", "runtime"},
    "__main__": {"commands", "data", "recipe", "run", "runtime", "signals", "__init__"},
    "commands": {
        "recipes",
        "train",
        "evaluation",
        "artifact",
        "imagenet",
        "doctor",
        "run",
        "runtime",
        "signals",
        "search",
        "checks",
        "inheritance",
        "recipe_data",
        "remarks",
        "models",
        "settings",
        "__init__",
    },
}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the whole name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def part(path: Path) -> str:
    """bigkeras/data/plan.py → data; bigkeras/train.py → train."""
    return path.relative_to(ROOT / "bigkeras").parts[0].removesuffix(".py")


def imported_part(name: str) -> str:
    """bigkeras.data.plan.Plan → data; bigkeras.__version__ → __init__."""
    second = name.split(".")[1]
    return second if second in TOP else "__init__"


@pytest.mark.parametrize("path", modules("bigkeras"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_the_table_allows(path):
    own = part(path)
    allowed = (ALLOWED[own] if own in ALLOWED else TOP - ENDS) | COMMON | {own}
    for line, name in imports(path):
        if name.split(".")[0] == "bigkeras":
            assert imported_part(name) in allowed, f"{path}:{line}: {own} may not import {name}"
        assert name.split(".")[0] not in ("apps", "tests"), f"{path}:{line}: bigkeras may not import {name}"


def test_apps_import_nothing_of_bigkeras():
    for path in modules("apps"):
        for line, name in imports(path):
            assert name.split(".")[0] not in ("bigkeras", "keras"), f"{path}:{line}: an app may not import {name}"


def test_models_import_no_tensorflow_and_layers_only_inside_calls():
    for path in modules("bigkeras/models"):
        for line, name in imports(path):
            assert name.split(".")[0] != "tensorflow", f"{path}:{line}: models run on every Keras backend"
    for path in modules("bigkeras/layers"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            named = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            assert "tensorflow" not in named, f"{path}:{node.lineno}: import it inside the call"


@pytest.mark.parametrize(
    "code",
    [
        "import bigkeras",
        "from bigkeras.__main__ import main; main(['--help'])",
        "from bigkeras.__main__ import main; main(['train', '--help'])",
        "from bigkeras.__main__ import main; main(['list'])",
        "import bigkeras.recipe, bigkeras.recipes, bigkeras.data.plan, bigkeras.data.source, bigkeras.runtime",
        "import bigkeras.metrics, bigkeras.pictures, bigkeras.report, bigkeras.doctor",
    ],
)
def test_tensorflow_and_keras_are_not_imported_before_they_are_needed(code):
    watch = "import atexit, sys; atexit.register(lambda: print('loaded:', {'tensorflow', 'keras'} & {*sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{watch}\n{code}"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: set()"
