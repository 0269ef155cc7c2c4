"""The layers of naive Bayes' ratios, held against sums written out."""

import numpy as np
import pytest

from bigkeras.layers import NaiveBayesEmbedding
from bigkeras.models import MODELS

TOKENS = np.array([[2, 3, 2, 0, 0], [4, 0, 0, 0, 0], [3, 4, 5, 5, 5]], "int32")


@pytest.mark.parametrize("classes", [2, 3])
def test_logits_are_the_sum_over_distinct_tokens_divided_by_the_root_of_their_number(classes):
    model = MODELS["nb_ngrams"](vocabulary_size=7, length=5, num_classes=classes)
    layer = model.get_layer("embedding")
    random = np.random.default_rng(0)
    ratios, weights = (random.normal(size=layer.ratios.shape).astype("float32") for _ in range(2))
    layer.ratios.assign(ratios)
    layer.embeddings.assign(weights)
    expected = []
    for row in TOKENS:
        distinct = sorted(set(row) - {0})
        expected.append((ratios * weights)[distinct].sum(0) / len(distinct) ** 0.5)
    logits = model(TOKENS).numpy()
    np.testing.assert_allclose(logits[:, 1:] - logits[:, :1] if classes == 2 else logits, expected, atol=1e-6)


def test_letters_have_a_sum_and_a_root_of_their_own():
    model = MODELS["nb_ngrams"](vocabulary_size=7, length=5, num_classes=3, letters_from=4)
    layer = model.get_layer("embedding")
    weights = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    layer.embeddings.assign(weights)
    tokens = np.array([[2, 3, 5, 2, 6], [1, 0, 0, 0, 0], [2, 6, 4, 4, 5]], "int32")
    expected = [
        weights[[2, 3]].sum(0) / 2**0.5 + weights[[5, 6]].sum(0) / 2**0.5,
        weights[1],
        weights[2] + weights[[4, 5, 6]].sum(0) / 3**0.5,
    ]
    np.testing.assert_allclose(model(tokens), expected, atol=1e-6)


def test_ratios_are_those_of_smoothed_shares_and_zero_where_nothing_was_seen():
    layer = NaiveBayesEmbedding(7, 2, smoothing=1.0)
    layer.build((None, None))
    layer.adapt_labelled([(TOKENS[:2], np.array([0, 1])), (TOKENS[2:], np.array([1]))])
    one, zero = np.array([0, 0, 0, 1, 2, 1, 0]) + 1.0, np.array([0, 0, 1, 1, 0, 0, 0]) + 1.0
    expected = np.log(one / one.sum()) - np.log(zero / zero.sum())
    expected[[0, 1, 6]] = 0
    np.testing.assert_allclose(np.asarray(layer.ratios)[:, 0], expected, atol=1e-6)


def test_tokens_that_an_earlier_run_did_not_see_keep_the_ratios_of_the_new_one():
    old, new = NaiveBayesEmbedding(7, 2), NaiveBayesEmbedding(7, 2)
    for layer in (old, new):
        layer.build((None, None))
    old.adapt_labelled([(TOKENS[:2], np.array([0, 1]))])
    old.embeddings.assign(np.full((7, 1), 0.5))
    new.adapt_labelled([(TOKENS[1:], np.array([0, 1]))])
    counted = np.array(new.ratios)
    new.continue_from(old)
    seen = [2, 3, 4]
    np.testing.assert_array_equal(np.asarray(new.ratios)[seen], np.asarray(old.ratios)[seen])
    assert np.asarray(new.ratios)[5] == counted[5] != 0
    np.testing.assert_array_equal(new.embeddings, old.embeddings)
    faster = NaiveBayesEmbedding(7, 2, rate=15.0)
    faster.build((None, None))
    faster.ratios.assign(np.zeros((7, 1)))
    faster.continue_from(old)
    np.testing.assert_allclose(faster(TOKENS), old(TOKENS), rtol=1e-6)
