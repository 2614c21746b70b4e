"""What users write, for a type checker: `tests/test_typing.py` runs it, and nothing runs this.

Every line is accepted as it is. Where a comment says that an error is ignored, there must be one.
"""

from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import attnc
from attnc.data import Subwords, Vocabulary, batches, pad, read_pairs, split, tokenise
from attnc.gradients import Gradients

Array = npt.NDArray[Any]

# ---- functions -----------------------------------------------------------------------------------

rng = np.random.default_rng(0)
x = rng.standard_normal((2, 5, 8)).astype(np.float32)
mask = np.tril(np.ones((2, 5, 5), bool))

context = attnc.dot_product_attention(x, x, x, causal=True, key_lengths=[5, 3])
assert_type(context, Array)
assert_type(attnc.attend([[0.0, 1.0]], [[1.0], [2.0]], mask=[[True, False]]), Array)
scores = attnc.additive_scores(x, x, np.ones(8), score_bias=[0.0] * 8, key_lengths=[5, 3])
assert_type(scores, Array)
attnc.dot_product_scores(x, x, bias=scores)  # type: ignore[call-arg]
assert_type(attnc.attend(scores, x, normalizer="sparsemax"), Array)
attnc.attend(scores, x, normalizer="sparse")  # type: ignore[call-overload]
assert_type(attnc.cosine_attention(x, x, x, scale=2, dropout=0.1, rng=rng, window=(3, None)), Array)
context, weights = attnc.multiplicative_attention(
    x, x, x, np.eye(8), mask=mask, return_weights=True
)
context = attnc.dot_product_attention(x, x, x, center=[[2.5] * 5], window=(2, 2), sigma=1.0)
assert_type(context, Array)
local = attnc.LocalAttention(8, 8, score="dot", width=3, rng=0)
assert_type(local(x, x, key_lengths=[5, 3]), Array)
assert_type(local.centers(x, x), Array)
parts = [attnc.dot_product_attention(x, x[:, s], x[:, s], return_lse=True) for s in (slice(3),)]
alignment, missing = attnc.monotonic_alignment(np.full((2, 5, 6), 0.5), key_lengths=[6, 4])
assert_type(alignment, Array)
value = np.ones((2, 6, 3))
assert_type(attnc.chunkwise_attention(alignment, alignment, value, 2), Array)
chunks = attnc.chunkwise_attention(alignment, alignment, value, 2, return_weights=True)
assert_type(chunks.weights, Array)
assert_type(attnc.rotary(x, offset=[3, 4], interleaved=True), Array)
assert_type(attnc.merge_attention([p.context for p in parts], [p.lse for p in parts]), Array)

one_key = attnc.hard_attention(x[..., :5], x, rng=rng, mask=mask, index=None)
assert_type(one_key.index, Array)
attnc.estimators.reinforce(one_key, np.ones((2, 1)), baseline=0.5)
assert_type(attnc.estimators.leave_one_out([[1.0], [2.0]]), Array)
relaxed = attnc.estimators.gumbel_softmax(x[..., :5], x, temperature=0.5, hard=True, causal=True)
assert_type(relaxed.context, Array)

attnc.hard_attention(x, x, sink=1.0)  # type: ignore[call-arg]
attnc.dot_product_attention(x, x, x, casual=True)  # type: ignore[call-overload]
attnc.dot_product_attention(x, x)  # type: ignore[call-overload]
attnc.attend(x, x, mask=np.ones((5, 8)))  # type: ignore[arg-type]
attnc.set_num_threads("2")  # type: ignore[arg-type]

# ---- gradients -----------------------------------------------------------------------------------

context, pullback = attnc.vjp(attnc.dot_product_attention, x, x, x, bias=np.zeros((2, 5, 5)))
assert_type(context, Array)
gradients = pullback(np.ones_like(context))
assert_type(gradients, Gradients)
dquery, dkey, dvalue = gradients
dbias = gradients.bias + gradients["bias"]

loss, pullback = attnc.vjp(attnc.losses.softmax_cross_entropy, x, np.zeros((2, 5), int))
assert_type(loss, float)
(dlogits,) = pullback()

attnc.vjp(attnc.functional.gru, x, [x, x, x, x], length=[5, 3])  # type: ignore[call-arg]
out, tangent = attnc.jvp(attnc.functional.gru, [x, [x, x, x, x]], {"x": x}, lengths=[5, 3])
assert_type(attnc.hvp(attnc.functional.relu, [x], [x], x), attnc.gradients.Gradients)
attnc.jvp(attnc.functional.relu, [x])  # type: ignore[call-arg]
out, tangent = attnc.jvp(attnc.Linear(3, 2), [x], {"weight": x})
assert_type(attnc.hvp(attnc.Linear(3, 2), [x], [x], x), attnc.gradients.Gradients)

# ---- layers --------------------------------------------------------------------------------------

attention = attnc.AdditiveAttention(8, 8, hidden_size=4, rng=0)
assert_type(attention(x, x), Array)
context, pullback = attnc.vjp(attention, x, x, key_lengths=[5, 3], train=True)
dstate, dmemory = pullback(context)
attention.parameters["score_vector"] *= 0.5
looked, pullback = attnc.vjp(attnc.HardAttention(8, 8, score="dot"), x, x, train=True, rng=0)
assert_type(looked.log_probability, Array)
monotonic = attnc.MonotonicAttention(8, 8, score="dot", rng=0)
first = monotonic(x[:, :1], x, hard=True)
assert_type(monotonic(x[:, 1:], x, previous=first.alignment[:, -1], hard=True).context, Array)
chunkwise = attnc.ChunkwiseAttention(8, 8, width=3, rng=0)
assert_type(chunkwise(x, x, key_lengths=[5, 3], train=True, rng=rng).weights, Array)
attnc.ChunkwiseAttention(8, 8)  # type: ignore[call-arg]
heads = attnc.MultiHeadAttention(8, num_heads=2, rotary=True)
own_cache = attnc.KVCache(window=4, keep=1, dtype="float16")
assert_type(heads(x, causal=True, cache=own_cache), Array)
assert_type(heads(x, x, key_lengths=[5, 3]), Array)
context, weights = heads(x, return_weights=True)
own_cache.reorder([1, 0])
assert_type(own_cache.lengths, Array)
assert_type(heads.torch_state_dict(), dict[str, Array])
heads(x, cache={})  # type: ignore[call-overload]
attention.load_state_dict(attention.state_dict())

assert_type(attnc.Convolution2d(2, 8, (3, 5), padding=1)(x), Array)
assert_type(attnc.MaxPool2d(2, stride=(1, 2))(x), Array)
attnc.AveragePool2d((2, 3, 4))  # type: ignore[arg-type]
assert_type(attnc.FeatureMap(2, 4)(attnc.ImageRegions()(x)), Array)
assert_type(attnc.AttentionPooling(8)(x, key_lengths=[5, 3]), Array)
pooled, weights = attnc.AttentionPooling(8, 4)(x, return_weights=True)
assert_type(attnc.HierarchicalAttention(8, 4)(x[:, None], word_lengths=[[5], [3]]), Array)
attnc.HierarchicalAttention(8, word_sizes=4)  # type: ignore[call-arg]
on_attention = attnc.AttentionOnAttention(attention, query_size=8, rng=0)
answer, pullback = attnc.vjp(on_attention, x, x, key_lengths=[5, 3])
mixed, weights, gate = attnc.GatedAttention(heads, heads, 8)(x, causal=True, return_weights=True)
assert_type(attnc.AttentionOverAttention()(x, x, query_lengths=2), Array)
attnc.AttentionOverAttention()(x, x, causal=True)  # type: ignore[call-overload]

encoder = attnc.GRU(8, 4, bidirectional=True)
(memory, state), pullback = attnc.vjp(encoder, x, lengths=[5, 3])
assert_type(memory, Array)
outputs, (h, c) = attnc.LSTM(8, 4)(x, (np.zeros((1, 2, 4)), np.zeros((1, 2, 4))))
decoder = attnc.AttentionDecoder(8, 4, 8, attention="dot", dtype=np.float64)
result = decoder(x, decoder.prepare(memory, key_lengths=[5, 3]), state)
assert_type(result.weights, Array)
choosing = attnc.AttentionDecoder(8, 4, 8, alignment="chunkwise", chunk_width=3, energy_noise=0.5)
assert_type(choosing.step(x[:, 0], choosing.prepare(memory, hard=True)).weights, Array)
attnc.AttentionDecoder(8, 4, 8, coverage="fertility", max_fertility=3.0, window=2)
attnc.AttentionDecoder(8, 4, 8, window="2")  # type: ignore[arg-type]
embedding, readout = attnc.Embedding(9, 8), attnc.Linear(4, 9)
tokens, weights = attnc.greedy_decode(
    decoder, embedding, readout, memory, start=1, end=2, max_length=7
)
drawn = attnc.sample_decode(
    decoder, embedding, readout, memory, start=[1, 1], end=[2, 3], max_length=7, top_p=0.9,
    logits_hook=lambda logits, tokens: logits / 2, return_log_probabilities=True,
)  # fmt: skip
assert_type(drawn.log_probabilities, Array)
attnc.sample_decode(decoder, start=1, end="2", max_length=None)  # type: ignore[call-overload]
model = attnc.Sequential(attnc.Linear(8, 4), attnc.Dropout(0.1), attnc.Residual(attnc.Linear(4, 4)))
assert_type(attnc.LayerNorm(8)(attnc.FeedForward(8, 16, activation="gelu")(x)), Array)
assert_type(attnc.LearnedPositions(99, 8)(x, offset=[3, 4]), Array)
attnc.FeedForward(8, 16, activation="swish")  # type: ignore[arg-type]
assert_type(attnc.functional.rms_norm(x, epsilon=1e-5), Array)

attnc.Seq2Seq(9, 9, 8, 4, window=2, position="predictive", position_size=3, coverage="tanh")
translator = attnc.Seq2Seq(9, 9, 8, 4)
assert_type(translator(tokens, tokens).logits, Array)
(loss, weights), pullback = attnc.vjp(translator, tokens, tokens, labels=tokens, train=True)
assert_type(loss, float)
assert_type(translator.translate(tokens, start=1, end=2, max_length=7, n_best=3).scores, Array)

encoder_layer = attnc.TransformerEncoderLayer(8, 2, 32, norm="pre", activation="gelu")
y, pullback = attnc.vjp(encoder_layer, x, key_lengths=[5, 3], train=True, rng=0)
assert_type(y, Array)
assert_type(encoder_layer(x, return_weights=True).weights, Array)
assert_type(attnc.TransformerDecoder(2, 8, 2, 32)(x, x, query_lengths=[5, 3]), Array)
transformer = attnc.Transformer(9, 9, 8, 2, encoder_layers=2, decoder_layers=2, positions="rotary")
assert_type(transformer(tokens, tokens, return_weights=True).logits, Array)
assert_type(attnc.vjp(transformer, tokens, tokens, labels=tokens)[0].loss, float)
assert_type(transformer.translate(tokens, start=1, end=2, max_length=7, n_best=3).scores, Array)
language_model = attnc.LanguageModel(9, 8, num_heads=2, layers=2)
model_cache = language_model.new_cache(window=16, dtype=np.float16)
assert_type(language_model(tokens, cache=model_cache), Array)
assert_type(language_model(tokens, labels=tokens), float)
assert_type(language_model.generate(tokens, max_length=5, temperature=0, end=2), Array)
attnc.TransformerEncoder(2, 8, 2, 32, activation="tanh")  # type: ignore[arg-type]

attnc.Linear(8)  # type: ignore[call-arg]
attnc.GRU(8, 4, dropuot=0.1)  # type: ignore[call-arg]
attention(x, x, dropout=0.1)  # type: ignore[call-overload]


class Scale(attnc.Layer):
    """A layer of one's own, as the docstring of `Layer` has it."""

    def __init__(self, size: int) -> None:
        super().__init__("float32")
        self.size = size
        self.add_parameter("factor", np.ones(size))

    def __call__(self, x: npt.ArrayLike) -> Array:
        return np.asarray(x) * self.parameters["factor"]


assert_type(attnc.vjp(Scale(8), x)[0], Array)

# ---- training ------------------------------------------------------------------------------------

optimizer = attnc.optim.Adam([encoder, decoder], learning_rate=1e-3, betas=(0.9, 0.98))
assert_type(attnc.optim.clip_gradients(model, 1.0), float)
optimizer.step()
attnc.optim.SGD(encoder.parameters, 0.1)  # type: ignore[arg-type]
assert_type(attnc.losses.binary_cross_entropy([0.5, -1], [True, False], mask=[True, True]), float)
assert_type(translator.freeze("encoder.*").frozen_parameters, tuple[str, ...])
assert_type(attnc.summary(translator).trained + translator.parameter_count, int)

vocabulary = Vocabulary.build([text.split() for text in ("to be", "or not to be")])
numbers = [vocabulary.encode(["to", "be"], end=True)]
for rows in batches([len(n) for n in numbers], 64, rng=0):
    array, lengths = pad([numbers[row] for row in rows], dtype=np.int32)
    assert_type(vocabulary.decode(array[0]), list[str])
assert_type(Subwords.build([tokenise("to be")], max_words=50), Subwords)
assert_type(Vocabulary.from_state(vocabulary.state()), Vocabulary)
pairs = read_pairs("corpus", format="moses", source="en", target="fr")
assert_type(split(pairs, validation=0.1, test=500).training, list[tuple[str, str]])
batches([1, 2], max_tokens="many")  # type: ignore[arg-type]
read_pairs("corpus", format="csv")  # type: ignore[arg-type]

attnc.save("model.npz", translator, optimizer=optimizer, vocabularies={"source": vocabulary})
saved = attnc.load("model.npz", classes=(Scale,))
saved.layer.translate(saved.vocabularies["source"].encode(["to"])[None], start=1, end=2)
attnc.save(translator, "model.npz")  # type: ignore[arg-type]

with attnc.set_num_threads(2):
    assert_type(attnc.get_num_threads(), int)
stages = attnc.stages(attnc.dot_product_attention, x, x, x, causal=True)
assert_type(stages.weights, Array)
dscores = stages.gradients(context).scores
assert_type(attnc.stages(heads, x, x).queries, Array)
assert_type(attnc.check_gradients(attnc.attend, None, np.eye(3), np.eye(3)), float)
