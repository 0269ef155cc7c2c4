"""Recipes for texts, and for pictures read as sequences.

Each claim says data, time, machine and score; the command is `bigkeras train NAME`.
"""

from bigkeras.recipe import Choice, Recipe

CHARACTER_NGRAMS = Choice("text_classification", {"tokens": "character", "ngrams": 3, "buckets": 2**18})

IMDB_BAG_OF_NGRAMS = Recipe(
    name="imdb-bag-of-ngrams",
    claim="IMDb by words and word pairs alone (fastText): the baseline that every other model has to beat",
    data=Choice("imdb_reviews"),
    task=Choice(
        "text_classification",
        {"tokens": "word", "ngrams": 2, "buckets": 2**18, "vocabulary_size": 60_000, "length": 1000, "nfkc": False},
    ),
    model=Choice("bag_of_ngrams", {"width": 16, "dropout": 0.3}),
    optimizer=Choice("adamw", {"learning_rate": 1e-2, "weight_decay": 0.0}),
    augmentation=(Choice("word_dropout", {"rate": 0.2}),),
    epochs=8,
    batch_size=128,
)

IMDB_NB_NGRAMS = Recipe(
    name="imdb-nb-ngrams",
    claim="IMDb by naive Bayes' ratios of words, pairs and triples: 91.42 % of the test reviews, a minute on two cores",
    data=Choice("imdb_reviews", {"validation": 0.0}),
    task=Choice(
        "text_classification",
        {"tokens": "word", "ngrams": 3, "buckets": 2**20, "vocabulary_size": 60_000, "length": 1000, "nfkc": False},
    ),
    model=Choice("nb_ngrams"),
    optimizer=Choice("adam", {"learning_rate": 3e-2}),
    schedule=Choice("linear", {"warmup_epochs": 0.0, "final": 0.1}),
    epochs=2,
    batch_size=128,
)

IMDB_LSTM = Recipe(
    name="imdb-lstm",
    claim="IMDb by an LSTM from scratch, both ways, maximum over time; for an accelerator",
    data=Choice("imdb_reviews"),
    task=Choice("text_classification", {"length": 400, "truncation": "head_tail", "vocabulary_size": 30_000}),
    model=Choice("lstm", {"units": 128, "bidirectional": True, "pooling": "max", "dropout": 0.5}),
    optimizer=Choice("adamw", {"learning_rate": 1e-3, "weight_decay": 0.01}),
    schedule=Choice("cosine", {"warmup_epochs": 0.5}),
    augmentation=(Choice("word_dropout", {"rate": 0.1}),),
    clip_norm=1.0,
    epochs=8,
    batch_size=64,
)

IMDB_TRANSFORMER = Recipe(
    name="imdb-transformer",
    claim="IMDb by a Transformer encoder from scratch, on SentencePiece; for an accelerator",
    data=Choice("imdb_reviews"),
    task=Choice(
        "text_classification",
        {"tokens": "sentencepiece", "vocabulary_size": 8000, "length": 512, "truncation": "head_tail"},
    ),
    model=Choice("transformer", {"depth": 2, "width": 128, "num_heads": 4, "feed_forward": 256, "dropout": 0.2}),
    optimizer=Choice("adamw", {"learning_rate": 5e-4, "weight_decay": 0.05}),
    schedule=Choice("cosine", {"warmup_epochs": 1.0}),
    augmentation=(Choice("word_dropout", {"rate": 0.1}),),
    clip_norm=1.0,
    epochs=8,
    batch_size=64,
)

SST2_BAG_OF_NGRAMS = Recipe(
    name="sst2-bag-of-ngrams",
    claim="SST-2, its whole sentences, by words and word pairs: a minute on two CPU cores",
    data=Choice("sst2"),
    task=Choice("text_classification", {"ngrams": 2, "min_count": 1}),
    model=Choice("bag_of_ngrams", {"width": 32, "dropout": 0.3}),
    optimizer=Choice("adamw", {"learning_rate": 5e-3, "weight_decay": 0.0}),
    augmentation=(Choice("word_dropout", {"rate": 0.2}),),
    epochs=8,
    batch_size=64,
)

WAIMAI_CHARACTERS = Recipe(
    name="waimai-characters",
    claim="Chinese takeaway reviews by their characters, pairs and triples; classes weighted by how rare they are",
    data=Choice("waimai"),
    task=CHARACTER_NGRAMS,
    model=Choice("bag_of_ngrams", {"width": 16, "dropout": 0.3}),
    optimizer=Choice("adamw", {"learning_rate": 5e-3, "weight_decay": 0.0}),
    augmentation=(Choice("word_dropout", {"rate": 0.1}),),
    balance="class_weights",
    monitor="val_macro_f1",
    epochs=8,
    batch_size=64,
)

TEXT_CSV = Recipe(
    name="text-csv",
    claim="your own CSV, TSV or JSON lines of text and label (--data FILE): tries candidates and keeps the best",
    data=Choice("text_table"),
    task=Choice("text_classification"),
    model=Choice("auto"),
)

TEXT_FOLDER = Recipe(
    name="text-folder",
    claim="your own folder of texts, one sub-folder per class (--data DIR): the same",
    data=Choice("text_folder"),
    task=Choice("text_classification"),
    model=Choice("auto"),
)

MNIST_LSTM = Recipe(
    name="mnist-lstm",
    claim="MNIST read row by row: two LSTM layers of 256, the last state; for an accelerator",
    data=Choice("mnist"),
    task=Choice("image_classification"),
    model=Choice("lstm", {"units": 256, "depth": 2}),
    optimizer=Choice("adamw", {"learning_rate": 1e-3, "weight_decay": 0.01}),
    schedule=Choice("cosine", {"warmup_epochs": 0.5}),
    augmentation=(Choice("crop", {"padding": 2, "mode": "constant"}),),
    clip_norm=1.0,
    epochs=10,
    batch_size=128,
)

MNIST_TRANSFORMER = Recipe(
    name="mnist-transformer",
    claim="MNIST read row by row by a Transformer encoder; for an accelerator",
    data=Choice("mnist"),
    task=Choice("image_classification"),
    model=Choice("transformer", {"depth": 4, "width": 128, "feed_forward": 256}),
    optimizer=Choice("adamw", {"learning_rate": 1e-3, "weight_decay": 0.05}),
    schedule=Choice("cosine", {"warmup_epochs": 1.0}),
    augmentation=(Choice("crop", {"padding": 2, "mode": "constant"}),),
    clip_norm=1.0,
    epochs=20,
    batch_size=128,
)

RECIPES = {
    r.name: r
    for r in (
        IMDB_BAG_OF_NGRAMS,
        IMDB_NB_NGRAMS,
        IMDB_LSTM,
        IMDB_TRANSFORMER,
        SST2_BAG_OF_NGRAMS,
        WAIMAI_CHARACTERS,
        TEXT_CSV,
        TEXT_FOLDER,
        MNIST_LSTM,
        MNIST_TRANSFORMER,
    )
}
