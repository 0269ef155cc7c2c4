"""The models: functions that give a functional `keras.Model` with float32 logits, by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from bigkeras.models.airbench import airbench
from bigkeras.models.bag_of_ngrams import bag_of_ngrams
from bigkeras.models.bert import bert, bert_mlm
from bigkeras.models.efficientnet import efficientnet
from bigkeras.models.encoder_decoder import transformer_translator
from bigkeras.models.inception import inception
from bigkeras.models.lenet import lenet
from bigkeras.models.nb_cnn import nb_cnn
from bigkeras.models.nb_ngrams import nb_ngrams
from bigkeras.models.pretrained import keras_application
from bigkeras.models.resnet import resnet
from bigkeras.models.rnn import gru, lstm, rnn
from bigkeras.models.seq2seq_rnn import seq2seq_rnn
from bigkeras.models.simple_cnn import simple_cnn
from bigkeras.models.text_cnn import text_cnn
from bigkeras.models.transformer import transformer
from bigkeras.models.wide_resnet import wide_resnet

MODELS: dict[str, Callable[..., keras.Model]] = {
    "airbench": airbench,
    "bag_of_ngrams": bag_of_ngrams,
    "bert": bert,
    "bert_mlm": bert_mlm,
    "efficientnet": efficientnet,
    "gru": gru,
    "inception": inception,
    "keras_application": keras_application,
    "lenet": lenet,
    "lstm": lstm,
    "nb_cnn": nb_cnn,
    "nb_ngrams": nb_ngrams,
    "resnet": resnet,
    "rnn": rnn,
    "seq2seq_rnn": seq2seq_rnn,
    "simple_cnn": simple_cnn,
    "text_cnn": text_cnn,
    "transformer": transformer,
    "transformer_translator": transformer_translator,
    "wide_resnet": wide_resnet,
}


# What a task tells of its data to those models that want to know it.
HINTS = ("words", "ngrams", "letters_from", "longest")


def build(function: Callable[..., keras.Model], data: Mapping[str, Any], args: Mapping[str, Any]) -> keras.Model:
    """The model of a function for a task's `model_arguments` and a recipe's arguments."""
    wanted = inspect.signature(function).parameters
    return function(**{k: v for k, v in data.items() if k in wanted or k not in HINTS}, **args)
