"""How many names that it has never seen an English to German translator copies: ./scripts/benchmark unseen-names."""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison import cores, environment, new_file, tell
from benchmarks.unseen_sentences import check_own
from bigkeras.data import DATASETS
from bigkeras.data.source import DataError, Splits
from bigkeras.run import RunError
from bigkeras.translation_metrics import corpus_bleu

# People, places and companies; those that stand in the training sentences are left out.
NAMES = """
Sabine Kowalski Nguyen Priya Heathrow Müller Schmidt Hamburg Leipzig Giulia Rodríguez Oluwaseun Björn
Katarzyna Dimitri Fatima Svetlana Ahmed Ingrid Wolfgang Patel Kruger Stuttgart Dresden Nairobi Jürgen Beatriz
Thiago Aoife Siobhan Zoltan Ferenc Yusuf Mehmet Elif Noor Amina Kwame Chidi Minjun Xiaoming Haruki Lindqvist
Petrov Andersson Vanessa Kimberly Brandon Tyler Hernandez Okafor Rosenberg Wójcik Gonzalez Matteo Chiara Lukas
Hannah Svenja Torben Bavaria Kassel Bremen Dortmund Vodafone Siemens Spotify Netflix Ryanair Ikea Zalando
Samsung
"""
WORD = re.compile(r"[^\W\d_]+")
TOM = re.compile(r"\bTom\b")  # who is in nearly a quarter of Tatoeba's sentences


def main(arguments: Sequence[str] | None = None) -> int:
    """Translates and prints what is kept; gives 1 where the data or the model are not there."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark unseen-names", description=__doc__)
    parser.add_argument("--model", default="translate-en-de", help="a shipped model, or an exported one's folder")
    parser.add_argument("--data", metavar="DIR", help="where tatoeba-deu-eng lies (default: BIGKERAS_DATA)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write what was measured")
    options = parser.parse_args(arguments)
    try:
        splits = DATASETS["tatoeba"](target_language="de", **({"directory": options.data} if options.data else {}))
        check_own(options.model, splits)
        names, pairs = renamed(splits)
    except (DataError, RunError) as error:
        print(error, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sentences.txt"
        file.write_text("".join(source + "\n" for source, _ in pairs), encoding="utf-8")
        command = [sys.executable, "-m", "apps.translation", "--file", str(file), "--model", options.model]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"apps.translation: exit status {done.returncode}"]
        print(told[-1], file=sys.stderr)
        return 1
    translations, references = done.stdout.splitlines(), [[target] for _, target in pairs]
    kept = sum(name in WORD.findall(text) for name, text in zip(names, translations, strict=True))
    found = {"sentences": len(pairs), "kept": kept, "bleu": round(corpus_bleu(translations, references, "de").score, 2)}
    report = {"environment": environment(cores(), ("tensorflow", "sacrebleu")), "model": options.model, **found}
    told = f"{len(pairs)} sentences with a name never seen: {kept} keep it, BLEU {found['bleu']:.2f}"
    tell([told], report, options.json)
    return 0


def renamed(splits: Splits) -> tuple[list[str], list[tuple[str, str]]]:
    """Names, and the validation pairs that have Tom equally often on both sides, with these in his place."""
    texts = [text.decode() for side in ("source", "target") for text in splits.train.columns[side]]
    seen = {word for text in texts for word in WORD.findall(text)}
    unseen = [name for name in NAMES.split() if name not in seen]
    columns = splits.validation.columns
    pairs = [(s.decode(), t.decode()) for s, t in zip(columns["source"], columns["target"], strict=True)]
    chosen = [pair for pair in pairs if len(TOM.findall(pair[0])) == len(TOM.findall(pair[1])) > 0]
    names = [unseen[i % len(unseen)] for i in range(len(chosen))]
    return names, [
        (TOM.sub(name, source), TOM.sub(name, target)) for name, (source, target) in zip(names, chosen, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
