"""The one-hot convolution beside Keras' own on one-hot vectors; the joint of two logits."""

import keras
import numpy as np

from bigkeras.layers import EitherOrBoth, LeadingTokens, OneHotConv1D


def test_equals_a_convolution_over_one_hot_vectors():
    tokens = np.array([[3, 1, 4, 1, 5], [2, 6, 9, 0, 0]])
    mask = tokens > 0
    layer = OneHotConv1D(7, 4, 3)
    layer.build(tokens.shape)
    layer.bias.assign(np.arange(4.0) / 9)
    found = layer(tokens, mask=mask)
    # 9 is outside the vocabulary, so it counts as 1, the unknown word.
    one_hot = np.eye(7)[np.where(tokens < 7, tokens, 1)] * mask[..., None]
    stock = keras.layers.Conv1D(4, 3, activation="relu")
    padded = np.pad(one_hot, ((0, 0), (0, 2), (0, 0)))
    stock.build(padded.shape)
    kernel = np.stack(np.split(layer.kernel.numpy(), 3, axis=1))
    stock.set_weights([kernel, layer.bias.numpy()])
    np.testing.assert_allclose(found, stock(padded), atol=1e-6)


def test_leading_tokens_are_all_tokens_and_no_ngram():
    for count, ngrams in [(n, g) for n in (1, 2, 3, 7) for g in (1, 2, 3, 4, 5)]:
        text = [2] * count + [9] * sum(max(count - k, 0) for k in range(1, ngrams))
        for padding in (0, 5):
            found = LeadingTokens(9, ngrams)(np.array([text + [0] * padding])).numpy()[0]
            assert (found == 2).sum() == count
            assert set(found) <= {0, 2}


def test_a_third_of_the_examples_each_has_one_of_the_logits_alone_in_training_only():
    first, second = np.full((3000, 2), 1.0), np.full((3000, 2), 10.0)
    layer = EitherOrBoth(seed=0)
    assert (layer([first, second]).numpy() == 11).all()
    values, counts = np.unique(layer([first, second], training=True).numpy(), return_counts=True)
    assert values.tolist() == [1, 10, 11]
    assert (abs(counts / 6000 - 1 / 3) < 0.03).all()
