"""A translator's scores of sentences that the model it began with has not seen: ./scripts/benchmark unseen-sentences.

translate-en-zh began with an English to German model, which has learned some of its held-out English sentences, with a
German translation.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.comparison import cores, environment, new_file, tell
from benchmarks.interleave import ROOT
from bigkeras.data import DATASETS
from bigkeras.data.fingerprint import DATA_FILE, fingerprints, other_data
from bigkeras.data.pair_splits import source_key
from bigkeras.data.source import ArraySource, DataError, Splits
from bigkeras.run import RunError, read_json
from bigkeras.tasks import load_task
from bigkeras.translation_evaluation import artifact_translator, translate_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Translates both kinds of a held-out split and prints their scores; gives 1 where something is not there."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark unseen-sentences", description=__doc__)
    parser.add_argument("--model", metavar="DIR", default=str(ROOT / "saved_models" / "translate-en-zh"),
                        help="an exported translator (default: the shipped translate-en-zh)")  # fmt: skip
    parser.add_argument("--origin", metavar="DIR", default="translate-en-de", help="what it began with (%(default)s)")
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--data", metavar="DIR", help="where Tatoeba's folders lie (default: BIGKERAS_DATA)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write what was measured")
    options = parser.parse_args(arguments)
    model = Path(options.model)
    try:
        parts = parted(model, options.origin, options.split, options.data)
        task, translate = load_task(model, ()), artifact_translator(model)
    except (DataError, RunError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    lines, scores = [], {}
    for name, source in parts.items():
        found: dict[str, Any] = translate_source(translate, source, task).metrics
        scores[name] = {key: found[key] for key in ("sentences", "bleu", "chrf", "signatures")}
        lines.append(f"{found['sentences']} {name}: BLEU {found['bleu']:.2f}, chrF {found['chrf']:.2f}")
    packages = environment(cores(), ("tensorflow", "sacrebleu"))
    tell(lines, {"environment": packages, "model": options.model, "split": options.split, **scores}, options.json)
    return 0


def check_own(model: str | Path, splits: Splits) -> None:
    """Raises DataError where an exported or shipped model has learned from other splits: of another release, say."""
    place = Path(model) if Path(model).is_dir() else ROOT / "saved_models" / model
    if not (place / DATA_FILE).is_file():
        raise DataError(f"{place}: no {DATA_FILE} there: what it has learned from is not known")
    changed = other_data(read_json(place / DATA_FILE), fingerprints(splits))
    if changed:
        raise DataError(f"{place}: has other held-out sentences than this data ({changed}), and may have learned these")


def parted(model: str | Path, origin: str | Path, split: str, directory: str | None) -> dict[str, ArraySource]:
    """A held-out split of Tatoeba's Chinese pairs, by whether the German training pairs have its English."""
    place = {"directory": directory} if directory else {}
    german, chinese = (DATASETS["tatoeba"](target_language=language, **place) for language in ("de", "zh"))
    check_own(model, chinese)
    check_own(origin, german)
    known = {source_key(text.decode()) for text in german.train.columns["source"]}
    held_out = getattr(chinese, split)
    seen = [source_key(text.decode()) in known for text in held_out.columns["source"]]
    return {
        name: held_out.take([place for place, one in enumerate(seen) if one is wanted])
        for name, wanted in (("seen", True), ("unseen", False))
    }


if __name__ == "__main__":
    sys.exit(main())
