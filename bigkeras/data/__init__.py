"""Where examples come from: functions that give Splits, by name. Imports no TensorFlow."""

from bigkeras.data.arrays import cifar10, digits, fashion_mnist, mnist

DATASETS = {
    "cifar10": cifar10,
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
}
