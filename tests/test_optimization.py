"""Learning rates that differ from layer to layer."""

import keras
import numpy as np
import pytest

from bigkeras.models import MODELS
from bigkeras.optimization import layer_rates, scale_rates
from bigkeras.recipe import RecipeError


def test_each_stage_moves_by_its_own_rate():
    network = MODELS["transformer"](
        vocabulary_size=20, length=8, num_classes=2, depth=2, width=8, num_heads=2, feed_forward=8
    )
    variables = network.trainable_variables
    rates = layer_rates(network, 0.5)
    optimizer = keras.optimizers.SGD(learning_rate=1.0)
    scale_rates(optimizer, rates)
    optimizer.build(variables)
    before = [v.numpy() for v in variables]
    optimizer.apply([np.ones(v.shape, "float32") for v in variables])
    moved = {v.path: float((b - v.numpy()).mean()) for v, b in zip(variables, before, strict=True)}
    assert moved["embedding/embeddings"] == pytest.approx(0.5**3, rel=1e-4)
    assert moved["logits/kernel"] == pytest.approx(1.0, rel=1e-4)
    for stage, rate in ((1, 0.5**2), (2, 0.5)):
        steps = [step for path, step in moved.items() if path.startswith(f"stage{stage}_")]
        assert len(steps) >= 8 and steps == pytest.approx([rate] * len(steps), rel=1e-4)


def test_a_network_without_stages_is_named():
    network = MODELS["bag_of_ngrams"](vocabulary_size=9, length=5, num_classes=2)
    with pytest.raises(RecipeError, match=r"layer_decay=0\.5: bag_of_ngrams has no layers that are named stage1"):
        layer_rates(network, 0.5)
