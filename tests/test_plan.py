"""The plan of an epoch is a pure function, and counts every example once."""

import numpy as np
import pytest

from bigkeras.data.plan import class_weights, epoch_plan, steps_per_epoch

LABELS = np.array([0] * 50 + [1] * 10 + [2] * 4, np.int32)


def test_every_example_counts_once_and_the_last_batch_is_filled():
    plan = epoch_plan(LABELS, batch_size=10, seed=3, epoch=1)
    counted = plan.indices[plan.weights > 0]
    assert sorted(counted) == list(range(64))
    assert plan.indices.shape == (7, 10)
    assert plan.weights.sum() == 64
    assert plan.indices.max() < 64


def test_a_plan_depends_on_seed_and_epoch_alone():
    first = epoch_plan(LABELS, batch_size=10, seed=3, epoch=1)
    again = epoch_plan(LABELS, batch_size=10, seed=3, epoch=1)
    other = epoch_plan(LABELS, batch_size=10, seed=3, epoch=2)
    assert np.array_equal(first.indices, again.indices)
    assert np.array_equal(first.randoms, again.randoms)
    assert not np.array_equal(first.indices, other.indices)


def test_an_image_is_flipped_in_every_second_epoch():
    flips = []
    for epoch in range(4):
        plan = epoch_plan(LABELS, batch_size=64, seed=0, epoch=epoch)
        flips.append(plan.randoms[0, np.argsort(plan.indices[0]), 0] < 0.5)
    assert np.array_equal(flips[0], flips[2])
    assert np.array_equal(flips[0], ~flips[1])
    assert 10 < flips[0].sum() < 54


@pytest.mark.parametrize(("balance", "each"), [("oversample", 50), ("undersample", 4)])
def test_resampling_shows_every_class_as_often(balance, each):
    plan = epoch_plan(LABELS, batch_size=10, seed=0, epoch=0, balance=balance)
    assert np.bincount(LABELS[plan.indices[plan.weights > 0]]).tolist() == [each] * 3
    assert len(plan.indices) == steps_per_epoch(LABELS, 10, balance)


def test_a_batch_larger_than_the_data_is_filled_too():
    plan = epoch_plan(LABELS[:3], batch_size=8, seed=0, epoch=0)
    assert plan.indices.shape == (1, 8)
    assert plan.weights.sum() == 3


def test_class_weights_average_to_one_over_the_examples():
    weights = class_weights(LABELS, 4)
    assert weights[LABELS].mean() == pytest.approx(1)
    assert weights[3] == 0
    assert weights[2] > weights[0]


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy at an address that TensorFlow takes over without copying."""
    memory = np.zeros(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def test_what_is_done_to_a_batch_does_not_change_the_plan_of_the_next_pass():
    import tensorflow as tf

    from bigkeras.data.pipeline import plan_rows
    from bigkeras.data.plan import Plan

    plan = epoch_plan(LABELS, batch_size=16, seed=0, epoch=0)
    plan = Plan(*(aligned(a) for a in (plan.indices, plan.weights, plan.randoms)))

    @tf.function
    def consume(iterator, values):
        # A result may be written over an input that nobody else holds.
        return tf.reduce_sum(tf.sqrt(values) * next(iterator)["weight"])

    iterator = iter(plan_rows(lambda _: plan, range(1)).repeat(20).prefetch(2))
    for _ in range(60):
        consume(iterator, tf.ones(16) * 9)
    assert plan.weights.tolist() == np.ones((4, 16)).tolist()


LENGTHS = np.random.default_rng(0).integers(1, 400, 640)


def by_length(epoch=0, **options):
    return epoch_plan(np.zeros(640, np.int32), batch_size=9, seed=1, epoch=epoch, lengths=LENGTHS, **options)


def test_batches_by_length_count_every_example_once_and_hold_little_padding():
    plan = by_length()
    assert sorted(plan.indices[plan.weights > 0]) == list(range(640))
    spread = np.ptp(LENGTHS[plan.indices[:-1]], axis=1)
    assert np.median(spread) < 20
    assert not np.all(np.diff(LENGTHS[plan.indices[:-1]].max(1)) >= 0)  # nor from short to long


def test_batches_by_length_are_others_in_every_epoch_and_the_same_again():
    assert np.array_equal(by_length(3).indices, by_length(3).indices)
    assert {frozenset(row) for row in by_length(0).indices.tolist()} != {
        frozenset(row) for row in by_length(1).indices.tolist()
    }


def test_an_evaluation_by_length_sorts_all_examples():
    plan = by_length(shuffle=False)
    assert np.all(np.diff(LENGTHS[plan.indices[plan.weights > 0]]) >= 0)
