"""BLEU of lower-cased, tokenised captions, as Multi30k's papers give it: ./scripts/benchmark multi30k-tokenised.

The text is made as the data set's own scripts/task1-tokenize.sh makes it: lower case, then Moses' normalisation of
punctuation, then Moses' tokeniser, by sacremoses, for translations and references alike; then sacrebleu counts words as
they stand (`tokenize="none"`).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison import cores, environment, new_file, tell
from bigkeras.data import DATASETS
from bigkeras.data.source import DataError
from bigkeras.run import RunError
from bigkeras.tasks import load_task
from bigkeras.translation_evaluation import artifact_translator, translate_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Translates a held-out split and prints its score; gives 1 where something is not there."""
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark multi30k-tokenised", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", metavar="DIR", help="an exported translator from English to German")
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--data", metavar="DIR", help="where multi30k lies (default: BIGKERAS_DATA)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write what was measured")
    options = parser.parse_args(arguments)
    try:
        source = getattr(DATASETS["multi30k"](**({"directory": options.data} if options.data else {})), options.split)
        task, translate = load_task(Path(options.model), ()), artifact_translator(Path(options.model))
    except (DataError, RunError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    found = translate_source(translate, source, task)
    score, signature = tokenised_bleu(found.translations, [known[0] for known in found.references])
    cased = found.metrics
    told = [
        f"{len(source)} captions: BLEU {score:.2f} lower-cased and tokenised ({signature})",
        f"as it stands: {cased['bleu']:.2f} ({cased['signatures']['bleu']})",
    ]
    report = {
        "environment": environment(cores(), ("tensorflow", "sacrebleu", "sacremoses")), "model": options.model,
        "split": options.split, "bleu_tokenised": score, "signature": signature, "bleu": cased["bleu"],
    }  # fmt: skip
    tell(told, report, options.json)
    return 0


def tokenised(texts: Sequence[str], language: str = "de") -> list[str]:
    """Texts as task1-tokenize.sh has them: words and signs with a space between."""
    import sacremoses

    normalizer, tokenizer = sacremoses.MosesPunctNormalizer(language), sacremoses.MosesTokenizer(language)
    return [tokenizer.tokenize(normalizer.normalize(text.lower()), return_str=True) for text in texts]


def tokenised_bleu(translations: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """BLEU of tokenised text, one reference each, and its signature."""
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize="none", force=True)  # or it warns of text that is tokenised already
    score = metric.corpus_score(tokenised(translations), [tokenised(references)]).score
    return score, str(metric.get_signature())


if __name__ == "__main__":
    sys.exit(main())
