"""Where examples come from: functions that give Splits, by name. Imports no TensorFlow."""

from collections.abc import Callable

from bigkeras.data.arrays import cifar10, digits, fashion_mnist, mnist
from bigkeras.data.folder import image_folder
from bigkeras.data.pack import packed
from bigkeras.data.reviews import imdb_reviews, sst2, waimai
from bigkeras.data.source import Splits
from bigkeras.data.table import image_table
from bigkeras.data.text_folder import text_folder
from bigkeras.data.text_table import text_table

DATASETS: dict[str, Callable[..., Splits]] = {
    "cifar10": cifar10,
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "image_folder": image_folder,
    "image_table": image_table,
    "imdb_reviews": imdb_reviews,
    "mnist": mnist,
    "packed": packed,
    "sst2": sst2,
    "text_folder": text_folder,
    "text_table": text_table,
    "waimai": waimai,
}
