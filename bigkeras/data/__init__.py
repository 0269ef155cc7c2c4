"""Where examples come from: functions that give Splits, by name. Imports no TensorFlow."""

from collections.abc import Callable

from bigkeras.data.arrays import cifar10, digits, fashion_mnist, mnist
from bigkeras.data.corpora import multi30k, tatoeba, tfds_translation
from bigkeras.data.folder import image_folder
from bigkeras.data.own_pairs import aligned_files, tmx, translation_pairs
from bigkeras.data.pack import packed
from bigkeras.data.plain_text import imdb_unlabelled, imdb_with_unlabelled, plain_text
from bigkeras.data.reviews import imdb_reviews, sst2, waimai
from bigkeras.data.source import Splits
from bigkeras.data.table import image_table
from bigkeras.data.text_folder import text_folder
from bigkeras.data.text_table import text_table

DATASETS: dict[str, Callable[..., Splits]] = {
    "aligned_files": aligned_files,
    "cifar10": cifar10,
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "image_folder": image_folder,
    "image_table": image_table,
    "imdb_reviews": imdb_reviews,
    "imdb_unlabelled": imdb_unlabelled,
    "imdb_with_unlabelled": imdb_with_unlabelled,
    "mnist": mnist,
    "multi30k": multi30k,
    "packed": packed,
    "plain_text": plain_text,
    "sst2": sst2,
    "tatoeba": tatoeba,
    "text_folder": text_folder,
    "text_table": text_table,
    "tfds_translation": tfds_translation,
    "tmx": tmx,
    "translation_pairs": translation_pairs,
    "waimai": waimai,
}
