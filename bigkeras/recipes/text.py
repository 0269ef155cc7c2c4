"""Recipes for texts, and for pictures read as sequences.

Claims say data, time, machine and score of those that were measured; the command is `bigkeras train NAME`.
"""

from dataclasses import replace

from bigkeras.recipe import Choice, Recipe

CHARACTER_NGRAMS = Choice("text_classification", {"tokens": "character", "ngrams": 3, "buckets": 2**18})

IMDB_BAG_OF_NGRAMS = Recipe(
    name="imdb-bag-of-ngrams",
    claim="IMDb by words and word pairs alone (fastText): the baseline that every other model has to beat, 90.75 % "
    "with --set data.validation=0",
    data=Choice("imdb_reviews"),
    task=Choice(
        "text_classification",
        {"tokens": "word", "ngrams": 2, "buckets": 2**20, "vocabulary_size": 60_000, "length": 1000, "nfkc": False},
    ),
    model=Choice("bag_of_ngrams", {"width": 16, "dropout": 0.3}),
    optimizer=Choice("adamw", {"learning_rate": 1e-2, "weight_decay": 0.0}),
    augmentation=(Choice("word_dropout", {"rate": 0.2}),),
    epochs=8,
    batch_size=128,
)

IMDB_NB_NGRAMS = Recipe(
    name="imdb-nb-ngrams",
    claim="IMDb by naive Bayes' ratios of words, pairs and triples: 92.37 % of the test reviews, a minute on two cores",
    data=Choice("imdb_reviews", {"validation": 0.0}),
    task=Choice(
        "text_classification",
        # Most pairs and triples are rare, and two in one bucket spoil each other's ratio: with 2**20 91.4 %. No
        # film stands in both parts, so that names tell little (docs/texts.md).
        {
            "tokens": "word",
            "ngrams": 3,
            "buckets": 2**23,
            "vocabulary_size": 60_000,
            "length": 1000,
            "nfkc": False,
            "proper_names": False,
        },
    ),
    model=Choice("nb_ngrams"),
    optimizer=Choice("adam", {"learning_rate": 3e-2}),
    schedule=Choice("linear", {"warmup_epochs": 0.0, "final": 0.1}),
    epochs=2,
    batch_size=128,
)

IMDB_SELF_TRAINING = IMDB_NB_NGRAMS.override(
    name="imdb-self-training",
    claim="IMDb, naive Bayes' ratios, on its unlabelled reviews, too, as imdb-nb-ngrams answers them (train that "
    "first), beside latent semantic analysis of all reviews: 93.10 % of the test reviews, four minutes on two cores",
    data=Choice("imdb_with_unlabelled", {"validation": 0.0}),
    task=Choice("text_classification", {**IMDB_NB_NGRAMS.task.args, "buckets": 2**24}),
    model=Choice("nb_ngrams", {"latent": 200}),
    teacher="runs/imdb-nb-ngrams",
)

IMDB_LSTM = Recipe(
    name="imdb-lstm",
    claim="IMDb by an LSTM from scratch, both ways, maximum over time: 87.24 % of the test reviews, 15 minutes on two "
    "cores with bfloat16",
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
    claim="IMDb by a Transformer encoder from scratch, on SentencePiece: 87.12 % of the test reviews, 52 minutes on "
    "two cores with bfloat16",
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

PRETRAIN_TEXT = Recipe(
    name="pretrain-text",
    claim="your own texts without labels (--data FILE or DIR): a small BERT learns to say which word is hidden",
    data=Choice("plain_text"),
    task=Choice("masked_language_model"),
    model=Choice("bert_mlm", {"size": "mini"}),
    optimizer=Choice("adamw", {"learning_rate": 1e-3, "weight_decay": 0.01}),
    schedule=Choice("linear", {"warmup_epochs": 0.5}),
    clip_norm=1.0,
    monitor="val_loss",
    epochs=10,
    batch_size=64,
)

IMDB_PRETRAIN = replace(
    PRETRAIN_TEXT,
    name="imdb-pretrain",
    claim="a small BERT learns from 74,000 film reviews, without their ratings, which word is hidden; for an "
    "accelerator",
    data=Choice("imdb_unlabelled"),
    epochs=20,
)

IMDB_BERT = Recipe(
    name="imdb-bert",
    claim="IMDb by a small BERT that starts from imdb-pretrain (train that first); for an accelerator",
    data=Choice("imdb_reviews"),
    task=Choice("text_classification", {"tokens": "sentencepiece"}),
    model=Choice("bert", {"size": "mini", "pooling": "mean"}),
    optimizer=Choice("adamw", {"learning_rate": 2e-4, "weight_decay": 0.01}),
    schedule=Choice("linear", {"warmup_epochs": 0.3}),
    start_from="runs/imdb-pretrain",
    clip_norm=1.0,
    epochs=4,
    batch_size=32,
)

SST2_MINILM = Recipe(
    name="sst2-minilm",
    claim="SST-2, its whole sentences, by the published MiniLM, fine-tuned: 89.24 % of the test sentences, 25 minutes "
    "on two cores",
    data=Choice("sst2"),
    task=Choice("text_classification", {"length": 64}),
    model=Choice("bert", {"size": "minilm", "pooling": "mean"}),
    optimizer=Choice("adamw", {"learning_rate": 8e-5, "weight_decay": 0.01}),
    schedule=Choice("linear", {"warmup_epochs": 0.3}),
    augmentation=(Choice("word_dropout", {"rate": 0.1}),),
    start_from="minilm",
    layer_decay=0.9,
    ema=0.995,
    clip_norm=1.0,
    epochs=4,
    batch_size=32,
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

WAIMAI_NB_CNN = Recipe(
    name="waimai-nb-cnn",
    claim="Chinese takeaway reviews by ratios of up to three characters beside convolutions over characters",
    data=Choice("waimai"),
    task=Choice("text_classification", {"tokens": "character", "ngrams": 3, "buckets": 2**18, "min_count": 1}),
    model=Choice("nb_cnn", {"windows": (2, 3, 4), "filters": 120, "known_words": 2000}),
    optimizer=Choice("adam", {"learning_rate": 1e-3}),
    epochs=6,
    batch_size=64,
)

TEXT_CSV = Recipe(
    name="text-csv",
    claim="your own CSV, TSV or JSON lines of text and label (--data FILE): tries candidates and keeps the best",
    data=Choice("text_table"),
    task=Choice("text_classification"),
    model=Choice("auto"),
    max_bad_fraction=0.1,
)

TEXT_FOLDER = Recipe(
    name="text-folder",
    claim="your own folder of texts, one sub-folder per class (--data DIR): what text-csv does with a table",
    data=Choice("text_folder"),
    task=Choice("text_classification"),
    model=Choice("auto"),
    max_bad_fraction=0.1,
)

MNIST_LSTM = Recipe(
    name="mnist-lstm",
    claim="MNIST read row by row: two LSTM layers of 256, the last state: 99.31 % in 20 minutes on two cores",
    data=Choice("mnist"),
    task=Choice("image_classification"),
    model=Choice("lstm", {"units": 256, "depth": 2}),
    optimizer=Choice("adamw", {"learning_rate": 1e-3, "weight_decay": 0.01}),
    schedule=Choice("cosine", {"warmup_epochs": 0.5}),
    augmentation=(Choice("crop", {"padding": 2, "mode": "constant"}),),
    clip_norm=1.0,
    epochs=6,
    batch_size=128,
)

MNIST_TRANSFORMER = Recipe(
    name="mnist-transformer",
    claim="MNIST read row by row by a Transformer encoder: 99.22 % in half an hour on two cores",
    data=Choice("mnist"),
    task=Choice("image_classification"),
    model=Choice("transformer", {"depth": 4, "width": 128, "feed_forward": 256}),
    optimizer=Choice("adamw", {"learning_rate": 1e-3, "weight_decay": 0.05}),
    schedule=Choice("cosine", {"warmup_epochs": 1.0}),
    augmentation=(Choice("crop", {"padding": 2, "mode": "constant"}),),
    clip_norm=1.0,
    epochs=10,
    batch_size=128,
)

RECIPES = {
    r.name: r
    for r in (
        IMDB_BAG_OF_NGRAMS,
        IMDB_NB_NGRAMS,
        IMDB_SELF_TRAINING,
        IMDB_LSTM,
        IMDB_TRANSFORMER,
        PRETRAIN_TEXT,
        IMDB_PRETRAIN,
        IMDB_BERT,
        SST2_MINILM,
        SST2_BAG_OF_NGRAMS,
        WAIMAI_CHARACTERS,
        WAIMAI_NB_CNN,
        TEXT_CSV,
        TEXT_FOLDER,
        MNIST_LSTM,
        MNIST_TRANSFORMER,
    )
}
