"""What translate measures: the artifacts of a run, the same weights for the peers, and sentences with their ids.

`python -m benchmarks.translation_artifacts '{"run": …, "folder": …}'` is started by translate.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.translation_peers import Weights, write_ctranslate2, write_hugging_face

GREEDY, BEAM = "greedy", "beam"
CTRANSLATE2, HUGGING_FACE_MODEL, SENTENCES, TARGET = "ctranslate2", "hugging_face", "sentences.json", "target.model"
COMPARED = 16  # sentences that both loaders must translate as the Keras model does


def make(run: Path, folder: Path, *, file: str | None, count: int, beam: int, peers: bool) -> dict[str, Any]:
    """Writes greedy/, beam/, sentences.json, target.model and, if asked, the peers' models; gives the sizes.

    The sentences are the first `count` of `file`, or of the run's test split, the shortest first.
    """
    import bigkeras.models  # noqa: F401  registers the layers of the run's .keras file
    from bigkeras.artifact import trained_model
    from bigkeras.float32 import in_float32
    from bigkeras.tasks import load_preprocessor
    from bigkeras.translation_artifact import export_translator
    from bigkeras.translator import Translator

    network, preprocessor = trained_model(run), load_preprocessor(run)
    texts = (from_file(Path(file)) if file else from_test(run))[:count]
    if not texts:
        raise SystemExit("Error: no sentences to translate")
    greedy = replace(preprocessor, beam=1, coverage_penalty=0.0)
    translations = Translator(in_float32(network), greedy)([text.encode() for text in texts])
    tokenizers = preprocessor.tokenizers()
    ids = tokenizers.source_ids(texts).to_list()
    written = tokenizers.target_ids(translations).row_lengths().numpy().tolist()
    rows = [{"text": text, "ids": some, "written": n} for text, some, n in zip(texts, ids, written, strict=True)]
    (folder / SENTENCES).write_text(json.dumps(sorted(rows, key=_length)), encoding="utf-8")
    (folder / TARGET).write_bytes(preprocessor.target_model)
    compared = [text.encode() for text in texts[:COMPARED]]
    # The peers' searches have no coverage penalty, and other formulas for the length.
    plain = replace(preprocessor, beam=beam, coverage_penalty=0.0, length_penalty=0.0)
    for name, how in ((GREEDY, greedy), (BEAM, plain)):
        export_translator(network, how, folder / name, examples=compared)
    sizes: dict[str, int] = {}
    if peers:
        try:
            write_ctranslate2(network, folder / CTRANSLATE2)
            write_hugging_face(network, folder / HUGGING_FACE_MODEL)
        except ValueError as error:
            raise SystemExit(f"Error: {error}; --without-peers measures ours alone") from None
        weights = Weights(network)
        sizes = {
            "vocabulary_size": len(weights.target), "num_layers": weights.depth, "num_heads": weights.heads,
            "hidden_dim": weights.width, "intermediate_dim": weights.feed_forward,
        }  # fmt: skip
    return {"parameters": network.count_params(), "sentences": len(rows), "sizes": sizes}


def from_file(path: Path) -> list[str]:
    """The lines of a text file that hold something."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def from_test(run: Path) -> list[str]:
    """The source sentences of the run's test split."""
    from bigkeras.recipe import load
    from bigkeras.recipe_data import load_splits
    from bigkeras.translator import texts_of

    test = load_splits(load(run)).test
    if test is None:
        raise SystemExit(f"Error: the data of {run} has no test split: name a file (--sentences)")
    return [text.decode() for text in texts_of(test).columns["source"]]


def _length(row: dict[str, Any]) -> int:
    return len(row["ids"])


def batches(rows: Sequence[Any], size: int, turns: int) -> list[Sequence[Any]]:
    """Batches of sentences of about one length, in an order in which every turn has all lengths."""
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [part for turn in range(turns) for part in parts[turn::turns]]


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    print(json.dumps(make(Path(options.pop("run")), Path(options.pop("folder")), **options)))
