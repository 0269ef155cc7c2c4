"""The models: functions that give a functional `keras.Model` with float32 logits, by name."""

from collections.abc import Callable

import keras

from bigkeras.models.airbench import airbench
from bigkeras.models.efficientnet import efficientnet
from bigkeras.models.inception import inception
from bigkeras.models.lenet import lenet
from bigkeras.models.pretrained import keras_application
from bigkeras.models.resnet import resnet
from bigkeras.models.simple_cnn import simple_cnn
from bigkeras.models.wide_resnet import wide_resnet

MODELS: dict[str, Callable[..., keras.Model]] = {
    "airbench": airbench,
    "efficientnet": efficientnet,
    "inception": inception,
    "keras_application": keras_application,
    "lenet": lenet,
    "resnet": resnet,
    "simple_cnn": simple_cnn,
    "wide_resnet": wide_resnet,
}
