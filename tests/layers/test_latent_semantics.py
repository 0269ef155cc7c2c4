"""Latent semantic analysis: what its table holds, what texts without labels tell it, and where there is little."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from bigkeras.layers import LatentSemantics, LearnedApart
from bigkeras.layers.latent_semantics import UNTOLD, token_vectors
from bigkeras.models import MODELS
from bigkeras.models.pretrained import copy_weights_by_name

VOCABULARY = 30


def made(classes, dimensions=4, **data):
    layer = LatentSemantics(VOCABULARY, classes, dimensions)
    layer.build((None, None))
    if data:
        layer.adapt_texts(**data)
    return layer


def texts_of(classes, count=150):
    """Ids and labels: every class has five tokens of its own, and all share ten; every id stands there once."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, count)
    own = 10 + 5 * labels[:, None] + np.argsort(random.random((count, 5)))[:, :2]
    return np.concatenate([1 + np.argsort(random.random((count, 9)))[:, :4], own], 1).astype("int32"), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_its_logits_are_those_of_the_classifier_on_mean_vectors(classes):
    ids, labels = texts_of(classes)
    layer = made(classes, labelled=[(ids[:70], labels[:70]), (ids[70:], labels[70:])])
    present = np.zeros((len(ids), VOCABULARY), "float32")
    np.put_along_axis(present, ids, 1, 1)
    used = np.flatnonzero(present.any(0))
    means = present[:, used] @ token_vectors(csr_matrix(present[:, used]), 4) / ids.shape[1]
    means = (means - means.mean(0)) * ids.shape[1] / (ids.shape[1] + UNTOLD)
    means /= np.sqrt((means**2).sum(1).mean())
    expected = LogisticRegression(C=30, max_iter=1000).fit(means, labels).predict_log_proba(means)
    logits = np.asarray(layer(ids))
    found = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert (logits.argmax(1) == labels).mean() > 0.95


def test_padding_says_nothing():
    layer = made(2, labelled=[texts_of(2)])
    ids = texts_of(2)[0][:3]
    padded = np.concatenate([ids, np.zeros((3, 2), "int32")], 1)
    np.testing.assert_allclose(layer(ids), layer(padded), atol=1e-6)
    assert np.isfinite(layer(np.zeros((1, 4), "int32"))).all()


def test_the_shorter_a_text_the_nearer_it_is_to_the_average_one():
    layer = made(2, labelled=[texts_of(2)])
    one, two = (np.diff(np.asarray(layer(np.array([ids], "int32")))).item() for ids in ([11], [11, 12]))
    average = np.asarray(layer.intercept).item()
    assert average > one > two or average < one < two
    nothing = np.diff(np.asarray(layer(np.zeros((1, 3), "int32")))).item()
    assert nothing == pytest.approx(average, abs=1e-6)


def test_a_token_without_labels_means_what_it_stands_beside():
    """20 stands in no labelled text, and in unlabelled ones beside the tokens of class 1."""
    ids, labels = texts_of(2)
    labelled = [(ids[:40], labels[:40])]
    more = ids[labels == 1].copy()
    more[::2, -1] = 20
    alone = np.array([[20]], "int32")
    assert np.ptp(made(2, labelled=labelled)(alone) - made(2, labelled=labelled)(np.array([[29]], "int32"))) < 1e-6
    unlabelled = [(np.concatenate([more, ids[labels == 0]]), np.zeros(len(ids), int))]
    logits = np.asarray(made(2, labelled=labelled, unlabelled=unlabelled)(alone))
    assert logits[0, 1] - logits[0, 0] > 1


def test_one_that_was_saved_before_short_texts_counted_less_answers_as_it_did():
    new = made(2, labelled=[texts_of(2)])
    config = new.get_config()
    assert LatentSemantics.from_config(config).untold == UNTOLD
    del config["untold"]
    old = LatentSemantics.from_config(config)
    old.build((None, None))
    old.set_weights(new.get_weights())
    ids = texts_of(2)[0][:3]
    means = np.asarray(new.scores)[ids].mean(1)[:, 0] + np.asarray(new.intercept)
    np.testing.assert_allclose(np.diff(np.asarray(old(ids)))[:, 0], means, rtol=1e-5)
    with pytest.raises(ValueError, match="has untold=0 in the source and 20 in the target"):
        new.continue_from(old)


def test_few_texts_or_classes_are_no_error():
    ids, labels = texts_of(3)
    for layer in (made(2, labelled=[(ids[:1], labels[:1])]), made(2, labelled=[(ids, np.zeros(len(ids), int))])):
        np.testing.assert_array_equal(layer(ids), np.zeros((len(ids), 2)))
    two = labels != 1
    assert set(np.asarray(made(3, labelled=[(ids[two], labels[two])])(ids)).argmax(1)) == {0, 2}
    made(3, dimensions=1000, labelled=[(ids, labels)])


def test_tokens_that_an_earlier_run_did_not_see_keep_what_was_found_now():
    ids, labels = texts_of(3)
    old, new = (made(3, labelled=[(ids[labels != left], labels[labels != left])]) for left in (1, 2))
    found = np.array(new.scores)
    new.continue_from(old)
    scores = np.asarray(new.scores)
    np.testing.assert_array_equal(scores[10:15], np.asarray(old.scores)[10:15])
    np.testing.assert_array_equal(scores[15:20], found[15:20])
    assert found[15:20].any(1).all()


@pytest.mark.parametrize(("old", "new"), [(0, 3), (3, 0)])
def test_what_was_trained_is_taken_over_by_a_model_with_it_and_without(old, new):
    models = [MODELS["nb_ngrams"](vocabulary_size=9, length=5, num_classes=3, latent=latent) for latent in (old, new)]
    trained, other = (
        model.get_layer("ratio_logits" if latent else "logits")
        for model, latent in zip(models, (old, new), strict=True)
    )
    trained.set_weights([weight + 1 for weight in trained.get_weights()])
    copy_weights_by_name(*models)
    for ours, theirs in zip(other.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_was_found_answers_beside_what_is_trained_but_not_in_training():
    trained, found = np.array([[2.0, 0.0]], "float32"), np.array([[0.0, 4.0]], "float32")
    np.testing.assert_array_equal(LearnedApart()([trained, found], training=True), trained)
    np.testing.assert_array_equal(LearnedApart()([trained, found]), [[1.0, 2.0]])
