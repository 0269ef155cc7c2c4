"""Translations a second beside CTranslate2, Hugging Face and KerasHub: ./scripts/benchmark translate."""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import ALLOCATOR, cores, environment, lacking, names_of, new_file, tell
from benchmarks.interleave import Worker, WorkerError, ratio_interval
from benchmarks.predict_text import made
from benchmarks.translation_artifacts import BEAM, GREEDY
from benchmarks.translators import COMPILED, CONTENDERS, FLOAT32, HUGGING_FACE, INT8, OURS

OWN = (OURS, COMPILED)
PEERS = ("ctranslate2", "torch", "transformers", "keras_hub")
SINGLES = 10  # one sentence in so many is also translated alone
# (batch, search): how many times as fast as whom.
GOALS: dict[tuple[str, str], dict[str, float]] = {
    ("many", GREEDY): {HUGGING_FACE: 2.0, FLOAT32: 2.0, INT8: 1.0},
    ("many", BEAM): {HUGGING_FACE: 2.0, FLOAT32: 1.3, INT8: 1.0},
    ("one", GREEDY): {HUGGING_FACE: 3.0},
    ("one", BEAM): {HUGGING_FACE: 3.0},
}
TRAIN = "bigkeras train multi30k-en-de --set start_from=saved_models/translate-en-de --set epochs=2"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table and writes JSON; gives 1 where a contender could not run."""
    options = parse(arguments)
    asked = [name for name in options.contenders if name in OWN or not options.without_peers]
    if not options.without_peers and lacking("translate", PEERS):
        return 1
    machine = environment(options.threads, ("tensorflow", "keras", *(name.replace("_", "-") for name in PEERS)))
    with tempfile.TemporaryDirectory() as folder:
        print("making the artifacts …", file=sys.stderr)
        values = {"run": str(options.run), "folder": folder, "file": options.sentences, "count": options.count}
        try:
            found = made("benchmarks.translation_artifacts",
                         {**values, "beam": options.beam, "peers": not options.without_peers})  # fmt: skip
            results = []
            for kind, search in itertools.product(options.kinds, options.searches):
                results.append(measure(kind, search, asked, {**found, "folder": folder}, options))
                print("\n".join(goals(results[-1])), file=sys.stderr)
        except WorkerError as error:
            print(f"{options.run}: {error}", file=sys.stderr)
            return 1
    report = {"environment": machine, "run": options.run.name, "parameters": found["parameters"],
              "batch": options.batch, "beam": options.beam, "results": results}  # fmt: skip
    tell(markdown(report), report, options.json)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options. Leaves with exit status 2 for one that is not there."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark translate", description=__doc__)
    parser.add_argument(
        "--run",
        type=Path,
        required=True,
        metavar="DIR",
        help="a trained translator's run directory, or an exported one's folder",
    )
    parser.add_argument("--sentences", metavar="FILE", help="a sentence a line (the test split of the run's data)")
    parser.add_argument("--count", type=int, default=1000, help="sentences at most (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="sentences at a time, where many (%(default)s)")
    parser.add_argument("--beam", type=int, default=4, help="of the beam search (%(default)s)")
    parser.add_argument("--kinds", type=names_of(("one", "many")), default=("many", "one"), help="one, many")
    parser.add_argument("--searches", type=names_of((GREEDY, BEAM)), default=(GREEDY, BEAM), help="greedy, beam")
    parser.add_argument("--contenders", type=names_of(tuple(CONTENDERS)), default=tuple(CONTENDERS),
                        help=f"of {', '.join(CONTENDERS)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=8, help="turns of every contender (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="100 sentences, three rounds: is it working?")
    parser.add_argument("--without-peers", action="store_true", help="neither CTranslate2 nor PyTorch nor KerasHub")
    parser.add_argument("--threads", type=int, default=cores(), help="of every contender (all cores: %(default)s)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write the times of all rounds")
    options = parser.parse_args(arguments)
    if min(options.count, options.batch, options.rounds, options.threads) < 1 or options.beam < 2:
        parser.error("--count, --batch, --rounds and --threads: at least 1; --beam: at least 2")
    if OURS not in options.contenders:
        parser.error(f"--contenders: {OURS} is what the others are compared with")
    if not (options.run / "recipe.json").is_file():
        parser.error(f"--run {options.run}: no recipe.json there; train one: {TRAIN}")
    if options.quick:
        options.count, options.rounds = min(options.count, 100), min(options.rounds, 3)
    return options


# ---------------------------------------------------------------------- measuring


def measure(
    kind: str, search: str, asked: Sequence[str], prepared: Mapping[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Every contender's rounds of one batch size and one search. Raises WorkerError where one fails."""
    many = kind == "many"
    count = prepared["sentences"] if many else -(-prepared["sentences"] // SINGLES)
    batch = options.batch if many else 1
    turns = min(options.rounds, -(-count // batch))
    values = {
        "folder": prepared["folder"], "sizes": prepared["sizes"],
        "search": search, "beams": options.beam if search == BEAM else 1, "batch": batch, "turns": turns,
        "step": 1 if many else SINGLES, "threads": options.threads,
    }  # fmt: skip
    print(f"{search}, {batch} at a time: {turns} rounds …", file=sys.stderr)
    parts = -(-count // batch)
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in asked}
    variables = {"OMP_NUM_THREADS": str(options.threads), "TF_CPP_MIN_LOG_LEVEL": "2"}
    workers: dict[str, Worker] = {}
    try:
        for name in asked:
            allocator = ALLOCATOR if name == HUGGING_FACE else {}
            workers[name] = Worker("benchmarks.translators", {**values, "contender": name}, {**variables, **allocator})
            workers[name].answer()  # warm
        for turn in range(turns):
            for name in [*asked[turn % len(asked) :], *asked[: turn % len(asked)]]:
                answers[name].append(workers[name].ask(len(range(turn, parts, turns))))
    finally:
        for worker in workers.values():
            worker.close()
    return {"kind": kind, "search": search, "batch": batch, "sentences": count, "contenders": summary(answers)}


def summary(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Rates over all rounds; how many times as fast as each ours is, for a target token, with its interval; memory."""
    per_token = {name: [sum(a["seconds"]) / a["tokens"] for a in of] for name, of in answers.items()}
    texts = {name: [text for a in of for text in a["texts"]] for name, of in answers.items()}
    result = {}
    for name, of in answers.items():
        seconds = sum(second for a in of for second in a["seconds"])
        result[name] = {
            "seconds": [a["seconds"] for a in of],
            "sentences_per_second": len(texts[name]) / seconds,
            "tokens_per_second": sum(a["tokens"] for a in of) / seconds,
            "times_ours": ratio_interval(per_token[name], per_token[OURS]),
            "times_compiled": ratio_interval(per_token[name], per_token[COMPILED]) if COMPILED in answers else None,
            "same": float(np.mean([a == b for a, b in zip(texts[name], texts[OURS], strict=True)])),
            "cpu_seconds": sum(a["cpu_seconds"] for a in of),
            "peak_mb": of[-1]["peak_mb"],
        }
    return result


# ---------------------------------------------------------------------- reporting


def markdown(report: Mapping[str, Any]) -> list[str]:
    """The table, a row for every contender, what it was measured on, and which goals were reached."""
    machine = report["environment"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads each; {machine['date']}; "
        f"load before {machine['load']}; {', '.join(f'{k} {v}' for k, v in machine['packages'].items())}; "
        f"{report['run']}, {report['parameters']:,} parameters",
        "",
        "| search | at a time | | sentences/s | target tokens/s | time of a token against ours (95 %) | "
        "against ours, compiled (95 %) | same translations | peak MB |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in report["results"]:
        search = f"beam {report['beam']}" if result["search"] == BEAM else GREEDY
        for name, of in result["contenders"].items():
            cells = [search, str(result["batch"]), name, f"{of['sentences_per_second']:.3g}",
                     f"{of['tokens_per_second']:.4g}", _ratio(of["times_ours"], name == OURS),
                     _ratio(of["times_compiled"], name == COMPILED), f"{of['same']:.0%}",
                     f"{of['peak_mb'] or 0:.0f}"]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *(line for result in report["results"] for line in goals(result))]


def _ratio(ratio: Sequence[float] | None, reference: bool) -> str:
    if ratio is None:
        return "–"
    return "1" if reference else f"{ratio[0]:.2f} ({ratio[1]:.2f}–{ratio[2]:.2f})"


def goals(result: Mapping[str, Any]) -> list[str]:
    """A line for each goal of this batch and search: reached or missed, by which signature."""
    lines = []
    for name, wanted in GOALS[result["kind"], result["search"]].items():
        of = result["contenders"].get(name)
        if of:
            plain, compiled = of["times_ours"][0], (of["times_compiled"] or [0.0])[0]
            how = "by both" if min(plain, compiled) >= wanted else "compiled" if compiled >= wanted else "uncompiled"
            told = f"reached, {how}" if max(plain, compiled) >= wanted else "missed"
            lines.append(f"{result['search']}, {result['batch']} at a time, {wanted:g} × {name}: {told} "
                         f"({plain:.2f}, compiled {compiled:.2f}).")  # fmt: skip
    return lines


if __name__ == "__main__":
    sys.exit(main())
