"""An embedding in several tables beside one in a single table."""

import keras
import numpy as np
import tensorflow as tf

from bigkeras.layers import ShardedEmbedding


def test_equals_one_table_in_answers_and_gradients():
    tokens = np.array([[0, 1, 2, 9], [7, 7, 3, 5]])
    table = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    sharded, whole = ShardedEmbedding(10, 3, shards=4), keras.layers.Embedding(10, 3)
    sharded.build(tokens.shape)
    whole.build(tokens.shape)
    sharded.set_weights([table[i::4] for i in range(4)])
    whole.set_weights([table])
    gradients = []
    for layer in (sharded, whole):
        with tf.GradientTape() as tape:
            answer = layer(tokens)
            loss = tf.reduce_sum(answer**2)
        np.testing.assert_array_equal(answer, table[tokens])
        gradients.append([tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, layer.trainable_variables)])
    for i in range(4):
        np.testing.assert_allclose(gradients[0][i], gradients[1][0][i::4])


def test_in_mixed_precision_rows_travel_and_no_whole_tables():
    layer = ShardedEmbedding(10, 3, shards=2, dtype="mixed_bfloat16")
    tokens = keras.Input((4,), dtype="int32")
    model = keras.Model(tokens, layer(tokens))
    with tf.GradientTape() as tape:
        answer = model(np.array([[0, 1, 2, 9]]))
        loss = tf.reduce_sum(answer)
    assert answer.dtype == tf.bfloat16
    assert all(isinstance(g, tf.IndexedSlices) for g in tape.gradient(loss, layer.trainable_variables))


def test_each_table_begins_otherwise_with_the_spread_asked_for():
    start = keras.initializers.RandomNormal(stddev=0.1, seed=3)
    layer = ShardedEmbedding(4000, 5, shards=2, embeddings_initializer=start)
    layer.build((None, 1))
    tables = layer.get_weights()
    assert not np.array_equal(*tables)
    np.testing.assert_allclose([table.std() for table in tables], 0.1, rtol=0.05)


def test_several_tables_train_when_compiled():
    model = keras.Sequential([keras.Input((4,), dtype="int32"), ShardedEmbedding(10, 3, shards=2)])
    model.compile("sgd", "mse", jit_compile=True)
    before = [table.copy() for table in model.get_weights()]
    model.fit(np.array([[0, 1, 2, 9]]), np.ones((1, 4, 3)), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        assert (old != new).any()
