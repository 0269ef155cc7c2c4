"""Decoding against an exhaustive search and a plain one in Python, and what must hold for any model."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras.decoding import (
    BEGIN,
    END,
    EXTRA,
    NEVER,
    RATIO,
    _top_k_of_parts,
    beam_search,
    greedy,
    sample,
)
from bigkeras.decoding_loop import STEPS_AT_FIRST
from bigkeras.models import MODELS
from bigkeras.models.stepper import stepper
from bigkeras.models.transformer import attention_maps

STATES, WORDS = 97, 8
TABLE = np.random.default_rng(0).normal(size=(STATES, WORDS), scale=1.5).astype("float32")
LOG = TABLE - np.log(np.exp(TABLE).sum(-1, keepdims=True))
SOURCE = np.array([[4, 5, 6, 7, 7], [5, 4, 0, 0, 0], [7, 0, 0, 0, 0], [0, 0, 0, 0, 0]], "int32")


class Table:
    """A stepper made by hand: the next token depends on all before it, by way of a number below STATES."""

    longest, compiled, covers = None, False, False

    def ready(self):
        return self

    def start(self, source, *, beams, steps):
        return [], tf.repeat(tf.reduce_sum(source, axis=1, keepdims=True), beams, axis=1)

    def step(self, tokens, index, memory, state):
        state = following(state, tokens)
        return tf.gather(TABLE, state), state

    def select(self, state, parents):
        return tf.gather(state, parents, batch_dims=1)

    def room(self, state):
        return None


def following(state, token):
    return (state * 5 + token * 7 + 3) % STATES


def penalty(tokens, alpha):
    return ((5 + tokens) / 6) ** alpha


def all_sentences(source, most, alpha):
    """Every sentence of at most `most` tokens with its score, best first; what stands last is END, at any price."""
    found = []
    for length in range(most):
        for words in itertools.product(range(END + 1, WORDS), repeat=length):
            state, total = following(sum(source), BEGIN), 0.0
            for token in (*words, END):
                total += LOG[state, token]
                state = following(state, token)
            found.append((total / penalty(length + 1, alpha), [*words, END]))
    return sorted(found, reverse=True)


def plain_search(source, beams, count, most, alpha):
    """Beam search as a person would write it down: lists, one sentence, no early end."""
    live, ended = [(0.0, [], following(sum(source), BEGIN))], []
    for index in range(most):
        nexts = [
            (total + LOG[state, token], [*words, token], following(state, token))
            for total, words, state in live
            for token in range(END, WORDS)
        ]
        nexts.sort(key=lambda entry: -entry[0])
        last = index == most - 1
        for rank, (total, words, _) in enumerate(nexts):
            if words[-1] == END and (rank < beams or last):
                ended.append((total / penalty(len(words), alpha), words))
        live = [entry for entry in nexts if entry[1][-1] != END][:beams]
    return sorted(ended, reverse=True)[:count]


def rows(ids):
    """Lists without the padding."""
    return [[[int(token) for token in row if token] for row in sentence] for sentence in np.asarray(ids)]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_search_that_is_wide_enough_finds_what_an_exhaustive_one_finds(alpha):
    ids, scores = beam_search(Table(), SOURCE, beams=64, count=5, length_penalty=alpha, most=4)
    for row, source in enumerate(SOURCE):
        expected = all_sentences(source, 4, alpha)[:5]
        np.testing.assert_allclose(scores[row], [score for score, _ in expected], rtol=1e-5)
        assert rows(ids)[row] == [words for _, words in expected]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize(("beams", "count"), [(1, 1), (2, 1), (3, 3)])
def test_beam_search_equals_a_plain_one_that_never_stops_early(beams, count, alpha):
    ids, scores = beam_search(Table(), SOURCE, beams=beams, count=count, length_penalty=alpha, most=9)
    for row, source in enumerate(SOURCE):
        expected = plain_search(source, beams, count, 9, alpha)
        np.testing.assert_allclose(scores[row, : len(expected)], [score for score, _ in expected], rtol=1e-5)
        assert rows(ids)[row][: len(expected)] == [words for _, words in expected]
        assert (scores[row, len(expected) :] == NEVER).numpy().all()


def test_the_loop_ends_when_all_sentences_have_ended():
    steps = []

    class Ends(Table):
        def step(self, tokens, index, memory, state):
            steps.append(int(index))
            logits, state = super().step(tokens, index, memory, state)
            return logits + 20.0 * tf.one_hot(END, WORDS) * float(index >= 2), state

    for decode in (greedy, beam_search):
        steps.clear()
        decode(Ends(), SOURCE, most=50)
        assert steps == [0, 1, 2]


@pytest.mark.parametrize("decode", [greedy, beam_search])
def test_sentences_that_have_ended_leave_when_half_of_the_batch_has(decode):
    rows = []

    class Ends(Table):
        """A sentence ends in the step that its first word says."""

        def start(self, source, *, beams, steps):
            return [source[:, 0]], super().start(source, beams=beams, steps=steps)[1]

        def step(self, tokens, index, memory, state):
            rows.append(len(tokens))
            logits, state = super().step(tokens, index, memory, state)
            ends = tf.cast(index >= memory[0], tf.float32)[:, None, None]
            return logits + 40.0 * tf.one_hot(END, WORDS) * (2 * ends - 1), state

    source = np.array([[5, 4], [1, 4], [0, 4], [2, 4]], "int32")
    ids, _ = decode(Ends(), source, most=12)
    assert rows == [4, 4, 2, 1, 1, 1]
    assert np.count_nonzero(ids, axis=-1).ravel().tolist() == [6, 2, 1, 3]


@pytest.fixture(scope="module")
def taken():
    """A small Transformer with weights that do not always say the same word, and its stepper."""
    sizes = {"vocabulary_size": 30, "length": 40, "depth": 2, "width": 16, "num_heads": 2, "feed_forward": 32}
    keras.utils.set_random_seed(0)
    model = MODELS["transformer_translator"](**sizes)
    random = np.random.default_rng(3)
    model.set_weights([w + random.normal(size=w.shape, scale=0.3) for w in model.get_weights()])
    return model, stepper(model), stepper(model, compiled=True)


def full_score(model, source, ids):
    """The sum of the log-probabilities of the ids, END's with them, in one pass over all of them."""
    target = np.array([[BEGIN, *ids[:-1]]], "int32")
    logits = model([source[None], target]).numpy()[0]
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return log[np.arange(len(ids)), ids].sum()


def sampled(stepper, source, **args):
    return sample(stepper, source, seed=7, count=3, temperature=1.3, **args)


def beams(stepper, source, **args):
    return beam_search(stepper, source, beams=4, count=3, **args)


@pytest.mark.parametrize("decode", [greedy, beams, sampled])
def test_every_sentence_ends_within_its_bound_and_is_padded_after(taken, decode):
    ids, _ = decode(taken[1], SOURCE)
    assert ids.dtype == "int32"
    assert ids.shape[2] == RATIO * SOURCE.shape[1] + EXTRA
    for source, sentences in zip(SOURCE, rows(ids), strict=True):
        for row in sentences:
            assert row[-1] == END
            assert len(row) <= RATIO * (source > 0).sum() + EXTRA
            assert min(row[:-1], default=END + 1) > END
        for row, kept in zip(ids.numpy()[SOURCE.tolist().index(source.tolist())], sentences, strict=True):
            assert not row[len(kept) :].any()


@pytest.mark.parametrize("decode", [greedy, beams, sampled])
def test_scores_are_what_the_full_pass_gives(taken, decode):
    ids, scores = decode(taken[1], SOURCE)
    for source, sentences, given in zip(SOURCE, rows(ids), scores.numpy(), strict=True):
        for row, score in zip(sentences, given, strict=True):
            expected = full_score(taken[0], source, row) / (penalty(len(row), 0.6) if decode is beams else 1)
            np.testing.assert_allclose(score, expected, rtol=1e-4)


@pytest.fixture(scope="module", params=["transformer_translator", "seq2seq_rnn"])
def covering(request, taken):
    """A model, and its steppers that keep coverage, plain and for compiling."""
    model = taken[0]
    if request.param == "seq2seq_rnn":
        keras.utils.set_random_seed(0)
        model = MODELS["seq2seq_rnn"](vocabulary_size=30, length=40, depth=1, units=8, embedding_width=8)
        random = np.random.default_rng(3)
        model.set_weights([w + random.normal(size=w.shape, scale=0.5) for w in model.get_weights()])
    return model, stepper(model, covers=True), stepper(model, covers=True, compiled=True)


def test_coverage_is_what_the_attention_of_the_full_pass_adds_up_to(covering):
    model, steps, compiled_steps = covering
    options = {"beams": 3, "count": 2, "coverage_penalty": 0.5, "most": 12}
    ids, scores = beam_search(steps, SOURCE[:3], **options)
    for source, sentences, given in zip(SOURCE, rows(ids), scores.numpy(), strict=False):
        for row, score in zip(sentences, given, strict=True):
            maps = attention_maps(model)([source[None], np.array([[BEGIN, *row[:-1]]], "int32")])
            looked = [value.numpy()[0].mean(0) for name, value in maps.items() if "cross" in name]
            covered = np.clip(np.mean(looked, 0).sum(0), 1e-6, 1)[source > 0]
            expected = full_score(model, source, row) / penalty(len(row), 0.6) + 0.5 * np.log(covered).sum()
            np.testing.assert_allclose(score, expected, rtol=1e-4)
    graph = tf.function(lambda source: beam_search(compiled_steps, source, **options), jit_compile=True)
    same, and_scores = graph(tf.constant(SOURCE[:3]))
    np.testing.assert_array_equal(same, ids)
    np.testing.assert_allclose(and_scores, scores, rtol=1e-4)


def test_the_best_of_a_search_come_first(taken):
    _, scores = beams(taken[1], SOURCE)
    assert (np.diff(scores) <= 0).all()


def test_one_beam_without_length_penalty_is_greedy(taken):
    ids, scores = greedy(taken[1], SOURCE)
    same, and_scores = beam_search(taken[1], SOURCE, beams=1, length_penalty=0.0)
    np.testing.assert_array_equal(same, ids)
    np.testing.assert_allclose(and_scores, scores, rtol=1e-5)


@pytest.mark.parametrize("decode", [greedy, beams])
def test_neighbours_and_padding_change_no_translation(taken, decode):
    ids, scores = decode(taken[1], SOURCE)
    for row, length in enumerate([5, 2, 1, 1]):
        for source in (SOURCE[row : row + 1, :length], np.pad(SOURCE[row : row + 1], ((0, 0), (0, 3)))):
            alone, score = decode(taken[1], source)
            assert rows(alone) == rows(ids)[row : row + 1]
            np.testing.assert_allclose(score, scores[row : row + 1], rtol=1e-4)


@pytest.mark.parametrize("decode", [greedy, beams])
def test_a_graph_and_a_compiled_one_give_what_eager_gives(taken, decode):
    assert STEPS_AT_FIRST < 20  # the caches grow
    expected, scores = decode(taken[1], SOURCE, most=20)
    anything = [tf.TensorSpec([None, None], tf.int32)]
    for steps, options in (
        (taken[1], {"input_signature": anything}),
        (taken[1], {}),
        (taken[2], {"jit_compile": True}),
    ):
        function = tf.function(functools.partial(decode, steps, most=20), **options)
        ids, given = function(tf.constant(SOURCE))
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(given, scores, rtol=1e-4)


def test_a_compiled_graph_translates_batches_that_cannot_be_halved_too(taken):
    anything = [tf.TensorSpec([None, None], tf.int32)]
    function = tf.function(functools.partial(beams, taken[2], most=12), jit_compile=True, input_signature=anything)
    for few in (SOURCE[:1], SOURCE[:3]):
        expected, scores = beams(taken[1], few, most=12)
        ids, given = function(tf.constant(few))
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(given, scores, rtol=1e-4)


def test_the_caches_of_one_sentence_have_half_the_room_for_half_of_the_steps():
    rooms = [4]

    class Grows(Table):
        compiled = True

        def step(self, tokens, index, memory, state):
            rooms.append(rooms[-1])
            logits, state = super().step(tokens, index, memory, state)
            return logits - 20.0 * tf.one_hot(END, WORDS), state

        def grown(self, state, steps):
            rooms[-1] = int(steps)
            return state

    greedy(Grows(), SOURCE[:1], most=8)
    assert rooms == [4] * 4 + [8] * 5


@pytest.mark.parametrize(
    ("compiled", "options"), [(True, {}), (True, {"top_k": 3, "top_p": 0.9}), (False, {"top_p": 0.5})]
)
def test_a_graph_draws_sentences_too(taken, compiled, options):
    taker = taken[2 if compiled else 1]
    decode = tf.function(lambda source: sampled(taker, source, most=6, **options), jit_compile=compiled)
    ids, scores = decode(tf.constant(SOURCE))
    for source, sentences, given in zip(SOURCE, rows(ids), scores.numpy(), strict=True):
        for row, score in zip(sentences, given, strict=True):
            np.testing.assert_allclose(score, full_score(taken[0], source, row), rtol=1e-4)


def test_a_stepper_for_compiling_gives_the_same_and_the_plain_one_holds_no_xla_operation(taken):
    expected, _ = beams(taken[1], SOURCE, most=12)
    ids, _ = tf.function(lambda source: beams(taken[2], source, most=12), jit_compile=True)(tf.constant(SOURCE))
    np.testing.assert_array_equal(ids, expected)
    plain = tf.function(lambda source: beams(taken[1], source, most=12)).get_concrete_function(tf.constant(SOURCE))
    graph = plain.graph.as_graph_def()
    operations = {node.op for function in graph.library.function for node in function.node_def}
    assert "MatMul" in operations
    assert not [operation for operation in operations if operation.startswith("Xla")]


def test_a_step_transposes_no_table_of_embeddings(taken):
    decode = tf.function(lambda source: beams(taken[1], source, most=4))
    library = decode.get_concrete_function(tf.constant(SOURCE)).graph.as_graph_def().library
    nodes = [node for function in library.function for node in function.node_def]
    assert [node for node in nodes if node.op == "ReadVariableOp"]
    assert not [node for node in nodes if node.op == "Transpose" and "ReadVariableOp" in node.input[0]]


@pytest.mark.parametrize(("size", "count"), [(1, 1), (5, 5), (30, 4), (101, 8)])
def test_the_best_of_parts_are_the_best_of_all(size, count):
    values = np.random.default_rng(0).permutation(6 * size).reshape(2, 3, size).astype("float32")
    for found, expected in zip(_top_k_of_parts(tf.constant(values), count), tf.math.top_k(values, count), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_drawing_from_one_token_is_greedy(taken):
    expected, scores = greedy(taken[1], SOURCE)
    for args in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}, {"temperature": 1e-9, "top_k": 2}):
        ids, given = sample(taken[1], SOURCE, seed=1, **args)
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(given, scores, rtol=1e-5)


def test_a_seed_draws_the_same_and_another_something_else():
    one, again, other = (sample(Table(), SOURCE, seed=seed, count=4)[0].numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_tokens_are_drawn_as_often_as_the_model_says():
    source = np.full((500, 1), 4, "int32")
    ids, _ = sample(Table(), source, seed=0, count=4, most=2)
    shares = np.bincount(np.asarray(ids)[:, :, 0].ravel(), minlength=WORDS) / 2000
    allowed = np.exp(LOG[following(4, BEGIN)]) * (np.arange(WORDS) >= END)
    np.testing.assert_allclose(shares, allowed / allowed.sum(), atol=0.04)


def test_top_k_and_top_p_leave_out_the_unlikely():
    source = np.full((500, 1), 4, "int32")
    allowed = np.exp(LOG[following(4, BEGIN), END:])
    shares = np.sort(allowed / allowed.sum())[::-1]
    likeliest = np.argsort(-allowed) + END
    for args, kept in (({"top_k": 3}, 3), ({"top_p": float(shares[:2].sum()) - 1e-3}, 2)):
        first = np.asarray(sample(Table(), source, seed=0, most=2, **args)[0])[:, 0, 0]
        assert set(first) == set(likeliest[:kept])


def test_learned_positions_bound_the_length():
    sizes = {"vocabulary_size": 30, "length": 7, "depth": 1, "width": 16, "num_heads": 2, "feed_forward": 32}
    model = MODELS["transformer_translator"](**sizes, positions="learned")
    assert greedy(stepper(model), SOURCE)[0].shape[2] == 7


def test_no_sentences_give_no_translations(taken):
    for decode in (greedy, beams, sampled):
        ids, scores = decode(taken[1], SOURCE[:0])
        assert ids.shape[0] == scores.shape[0] == 0


@pytest.mark.parametrize(
    ("decode", "args", "message"),
    [
        (beam_search, {"beams": 2, "count": 3}, "beams=2, count=3"),
        (beam_search, {"beams": 0}, "beams=0"),
        (beam_search, {"length_penalty": -0.1}, "length_penalty=-0.1"),
        (beam_search, {"coverage_penalty": -0.1}, "coverage_penalty=-0.1"),
        (beam_search, {"coverage_penalty": 0.2}, "by a stepper that covers"),
        (greedy, {"most": 0}, "most=0"),
        (sample, {"seed": 0, "temperature": 0.0}, "temperature=0.0"),
        (sample, {"seed": 0, "top_k": 0}, "top_k=0"),
        (sample, {"seed": 0, "top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_a_wrong_value_is_named(decode, args, message):
    with pytest.raises(ValueError, match=message):
        decode(Table(), SOURCE, **args)
