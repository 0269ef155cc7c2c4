"""Recipes for translation. Claims say data, time, machine and score; the command is `bigkeras train NAME`.

`batch_size` is a budget of tokens: pairs in a batch times the padded length of the longer side.
"""

from bigkeras.recipe import Choice, Recipe

SMOOTHED = Choice("cross_entropy", {"label_smoothing": 0.1})
# Wider and less dropout than what is published for some ten thousand pairs ("tiny" of Wu et al. 2021, arXiv 2105.14462,
# dropout 0.3, some 75 epochs), since it learns more in the same time (docs/performance.md, "Translators").
SMALL = Choice(
    "transformer_translator", {"depth": 3, "width": 256, "num_heads": 4, "feed_forward": 512, "dropout": 0.15}
)
ADAM = {"beta_1": 0.9, "beta_2": 0.98, "weight_decay": 1e-4}

CAPTIONS = {"vocabulary_size": 4000, "length": 64, "beam": 5, "coverage_penalty": 0.1}
MULTI30K_BOTH_DIRECTIONS = Recipe(
    name="multi30k-both-directions",
    claim="Multi30k, captions between English and German, both ways in one model: what multi30k-en-de starts from, 36 "
    "minutes on two cores with bfloat16 (--set precision=mixed_bfloat16; measured at commit da46270)",
    data=Choice("multi30k"),
    task=Choice("translation", {**CAPTIONS, "both_directions": 18}),
    model=SMALL,
    loss=SMOOTHED,
    optimizer=Choice("adamw", {"learning_rate": 1e-3, **ADAM}),
    schedule=Choice("linear", {"warmup_epochs": 3.0}),
    epochs=18,
    batch_size=2048,
    ema=0.998,
    monitor="val_bleu",
    patience=20,
)

MULTI30K_EN_DE = MULTI30K_BOTH_DIRECTIONS.override(
    name="multi30k-en-de",
    claim="Multi30k, captions from English to German, from its 29,000 pairs alone (train multi30k-both-directions "
    "first): BLEU 39.9 of test2016, 76 minutes on two cores with bfloat16 (--set precision=mixed_bfloat16)",
    task=Choice("translation", {**CAPTIONS, "sampling": 0.4}),
    model=Choice("transformer_translator", {**SMALL.args, "dropout": 0.25}),
    start_from="runs/multi30k-both-directions",
    schedule=Choice("linear", {"warmup_epochs": 1.5}),
    epochs=32,
)

MULTI30K_DIVERSIFIED = MULTI30K_EN_DE.override(
    name="multi30k-diversified",
    claim="Multi30k, captions from English to German, trained on with what both earlier models translate of the "
    "training captions; its 29,000 pairs are still all (train multi30k-en-de first): BLEU 40.2 of test2016 (its "
    "translations in float32), 85 minutes on two cores with bfloat16 (--set precision=mixed_bfloat16)",
    model=Choice("transformer_translator", {**SMALL.args, "dropout": 0.2}),
    optimizer=Choice("adamw", {"learning_rate": 7e-4, **ADAM}),
    start_from="runs/multi30k-en-de",
    teacher="runs/multi30k-en-de",
    back_translator="runs/multi30k-both-directions",
    # An epoch has some 83,000 pairs.
    schedule=Choice("linear", {"warmup_epochs": 0.4}),
    epochs=8,
    score_every=1,
)

TATOEBA_EN_DE = Recipe(
    name="tatoeba-en-de",
    claim="Tatoeba, everyday sentences from English to German: 169,197 pairs, 164,133 of them to train on; BLEU 47.4 "
    "of 2,698 test sentences, 108 minutes on two cores with bfloat16, beside other work",
    data=Choice("tatoeba", {"target_language": "de"}),
    task=Choice("translation", {"vocabulary_size": 8000, "length": 96}),
    model=Choice("transformer_translator", {**SMALL.args, "dropout": 0.1, "norm": "pre"}),
    loss=SMOOTHED,
    optimizer=Choice("adamw", {"learning_rate": 2e-3, **ADAM}),
    schedule=Choice("linear", {"warmup_epochs": 1.0}),
    epochs=11,
    batch_size=2048,
    precision="auto",
    ema=0.999,
    monitor="val_bleu",
    patience=6,
)

TATOEBA_EN_DE_NAMES = TATOEBA_EN_DE.override(
    name="tatoeba-en-de-names",
    claim="Tatoeba, everyday sentences from English to German, trained on with invented names and numbers, so that "
    "those it has not seen are copied (train tatoeba-en-de first): BLEU 47.5 of 2,698 test sentences, 47 minutes more "
    "on two cores with bfloat16",
    task=Choice("translation", {**TATOEBA_EN_DE.task.args, "names": 0.4}),
    start_from="runs/tatoeba-en-de",
    optimizer=Choice("adamw", {"learning_rate": 1e-3, **ADAM}),
    schedule=Choice("linear", {"warmup_epochs": 0.5}),
    epochs=5,
)

TATOEBA_EN_ZH = TATOEBA_EN_DE.override(
    name="tatoeba-en-zh",
    claim="Tatoeba, everyday sentences from English to Chinese: 29,155 pairs, 28,187 of them to train on, beginning "
    "with translate-en-de (measured with that of commit d5074d5); BLEU 41.2 (zh) and chrF 35.1 of 553 test sentences, "
    "some 32 minutes on two cores with bfloat16",
    data=Choice("tatoeba", {"target_language": "zh"}),
    # The languages share no words: a vocabulary for each.
    task=Choice(
        "translation", {"vocabulary_size": 4000, "joint": False, "length": 64, "sampling": 0.2, "coverage_penalty": 0.1}
    ),
    model=Choice("transformer_translator", {**SMALL.args, "dropout": 0.3, "norm": "pre"}),
    optimizer=Choice("adamw", {"learning_rate": 1.5e-3, **ADAM}),
    # Few pairs: what reads English, and how a translation is written, comes from a pair of languages with many.
    start_from="saved_models/translate-en-de",
    schedule=Choice("linear", {"warmup_epochs": 1.5}),
    epochs=20,
    batch_size=1024,
    ema=0.998,
    patience=10,
)

TRANSLATION_PAIRS = Recipe(
    name="translation-pairs",
    claim="your own sentence pairs, a TSV of source and target (--data FILE): a small Transformer that suits 20,000, "
    "of which captions (18,800 to train on) gave BLEU 36.4 in 44 minutes on two cores with bfloat16",
    data=Choice("translation_pairs"),
    task=Choice("translation", {"vocabulary_size": 4000, "length": 96, "coverage_penalty": 0.1}),
    # Normalised before attention and feed-forward it learns in some 60 % of the epochs, so that there is time for more
    # dropout (docs/texts.md).
    model=Choice("transformer_translator", {**SMALL.args, "dropout": 0.3, "norm": "pre"}),
    loss=SMOOTHED,
    optimizer=Choice("adamw", {"learning_rate": 2e-3, **ADAM}),
    schedule=Choice("linear", {"warmup_epochs": 1.5}),
    epochs=30,
    batch_size=1024,
    precision="auto",
    ema=0.999,
    monitor="val_bleu",
    patience=10,
)

TRANSLATION_MEMORY = TRANSLATION_PAIRS.override(
    name="translation-memory",
    claim="your own translation memory, as translators' tools write it (--data FILE.tmx): what translation-pairs does",
    data=Choice("tmx"),
)

TRANSLATORS = (
    MULTI30K_BOTH_DIRECTIONS, MULTI30K_EN_DE, MULTI30K_DIVERSIFIED, TATOEBA_EN_DE, TATOEBA_EN_DE_NAMES,
    TATOEBA_EN_ZH, TRANSLATION_PAIRS, TRANSLATION_MEMORY,
)  # fmt: skip
RECIPES = {recipe.name: recipe for recipe in TRANSLATORS}
