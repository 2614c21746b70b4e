"""What is measured: the shapes, in kinds, and how much work each of them is."""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.inputs import CHARACTERS, VOCABULARY

# Encoder: a GRU in both directions. Decoder: a GRU with additive attention, Bahdanau's order.
# Training: a step of both with embeddings and output layer, cross-entropy, clipping and Adam.
RECURRENT = "encoder", "decoder", "training"
# Multi-head self-attention; an encoder's layer, the norm after the sum, ReLU; a step of training a
# translator, of as many encoder as decoder layers; a language model that writes Tk characters.
TRANSFORMER = "multihead", "encoder_layer", "transformer", "generation"

# ---- one case ----


@dataclass(frozen=True)
class Case:
    """One function at one shape, forward or forward + backward.

    Sizes are named as everywhere in the project. In additive attention there are no heads, and D is
    the size of the hidden layer.
    """

    mechanism: str  # "dot_product", ..., "cosine", or of RECURRENT or TRANSFORMER
    B: int
    H: int
    Tq: int
    Tk: int
    D: int
    backward: bool = False  # forward + backward; else forward alone
    causal: bool = False
    lengths: tuple[int, ...] | None = None  # valid keys of each sequence; None: all
    packed: bool = False  # the lengths are those of queries too, and attnc gets no padding
    dtype: str = "float32"
    timed: bool = True  # else only its memory is measured
    E: int = 0  # recurrent: size of an input; D is that of the state. Transformer: H heads of D
    layers: int = 0
    weights: bool = False  # the weights are returned, too
    dropout: float = 0.0
    width: int = 0  # local: keys of the window on either side of its center
    centers: str = ""  # local: "monotonic" or "random"
    tangents: str = ""  # forward mode: "all", of query, key and value; or "query"

    @property
    def recurrent(self):
        return self.mechanism in RECURRENT

    @property
    def transformer(self):
        return self.mechanism in TRANSFORMER

    @property
    def compared(self):
        """Whether all contenders compute the same numbers: no random ones of their own, and no
        quotients by products that vanish, as those of many keys do."""
        if self.mechanism == "monotonic":
            return self.Tk <= 32
        return self.mechanism not in ("training", "transformer", "generation") and not self.dropout

    @property
    def label(self):
        """The shape as the tables show it."""
        if self.recurrent:
            return f"{self.mechanism} {self.B}, {self.Tk}, {self.Tq}, {self.E}, {self.D}"
        if self.transformer:
            text = f"{self.mechanism.replace('_', ' ')} {self.B}, {self.Tk}, {self.E}, {self.H}"
            text += f", {self.layers} layers" if self.layers else ""
            text += f", dropout {self.dropout:g}" if self.dropout else ""
            return text + (", with weights" if self.weights else "")
        if self.mechanism == "monotonic":
            return f"{self.B}, {self.Tq}, {self.Tk}"
        if self.mechanism == "local":
            sizes = f"{self.H}, {self.Tq}, {self.Tk}, {self.D}"
            return f"{sizes} window {2 * self.width + 1}, {self.centers} centers"
        additive = self.mechanism == "additive"
        sizes = (
            (self.B, self.Tq, self.Tk, self.D) if additive else (self.B, self.H, self.Tk, self.D)
        )
        text = ", ".join(map(str, sizes))
        if self.packed:
            text += f" packed, {sum(self.lengths)} rows"
        elif self.lengths:
            text += " lengths " + ", ".join(map(str, self.lengths))
        if self.halves:
            text += f" {self.dtype}" + " one query" * (self.Tq == 1)
        text += f" {self.tangents} tangent{'s' * (self.tangents == 'all')}" if self.tangents else ""
        return text + (" causal" if self.causal else "")

    @property
    def passes(self):
        """Which passes are timed, in words."""
        return "forward + backward" if self.backward else "forward"

    @property
    def itemsize(self):
        """Bytes of a number."""
        return {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}[self.dtype]

    @property
    def halves(self):
        """Whether numbers are stored in half precision."""
        return self.itemsize == 2

    @property
    def computed(self):
        """The dtype of the products: of halves, which are how numbers are stored, float32."""
        return "float32" if self.halves else self.dtype

    @property
    def pairs(self):
        """Pairs of a query and a key that it may attend to, in all heads."""
        if self.packed:
            return self.H * sum(n * (n + 1) // 2 if self.causal else n * n for n in self.lengths)
        if self.causal:
            return self.B * self.H * self.Tq * (self.Tq + 1) // 2
        keys = sum(self.lengths) if self.lengths else self.B * self.Tk
        return self.H * self.Tq * keys

    @property
    def work(self):
        """What the rates count.

        Additive: terms, that is, values of tanh. Others: floating-point operations. Forward these
        are two products (scores, context), 4 D a pair. Backward recomputes the scores and needs
        four more products: 2.5 times as much. Forward mode has two more for the tangents of the
        scores, one of them for the query's alone, and two for that of the context, one of them
        with the tangents of values. A multiplicative weight adds the product with it, and backward
        two of that size.
        """
        if self.mechanism == "additive":
            return self.pairs * self.D
        if self.recurrent:
            return self.recurrent_work * (3 if self.backward else 1)
        if self.transformer:
            return self.transformer_work
        forward = {"": 1, "query": 2, "all": 3}[self.tangents]
        flop = 4 * self.pairs * self.D * (3.5 if self.backward else forward)
        if self.mechanism == "multiplicative":
            flop += 2 * self.B * self.H * self.Tq * self.D**2 * (3 if self.backward else 1)
        return flop

    @property
    def recurrent_work(self):
        """The products of the forward pass; what is beside them is little. Backward has two for
        each."""
        B, Tk, Tq, E, D = self.B, self.Tk, self.Tq, self.E, self.D
        encoder = 2 * 2 * B * Tk * 3 * D * (E + D)
        cell_and_query = 3 * D * (E + D) + 3 * D * D + D * D
        decoder = 2 * B * (Tq * cell_and_query + Tk * D * D + Tq * Tk * D)
        if self.mechanism == "encoder":
            return encoder
        if self.mechanism == "decoder":
            return decoder
        # A direction of the translator's encoder has half the units.
        encoder = 2 * 2 * B * Tk * 3 * (D // 2) * (E + D // 2)
        return encoder + decoder + 2 * B * Tq * D * VOCABULARY

    @property
    def transformer_work(self):
        """Forward and backward: the products with weights are three times those of forward."""
        rows, E = self.B * self.Tk, self.E
        attention = 3.5 * 4 * self.B * self.Tk**2 * E
        multihead = 3 * 2 * rows * 4 * E**2 + attention
        layer = multihead + 3 * 2 * rows * 8 * E**2
        if self.mechanism == "multihead":
            return multihead
        if self.mechanism == "encoder_layer":
            return layer
        # A decoder's layer attends twice, the first time to half of the pairs.
        decoder = layer + multihead - attention / 2
        return self.layers * (layer + decoder) + 3 * 2 * rows * E * VOCABULARY

    @property
    def bytes_read(self):
        """Size of keys and values: what one query has to read. Generation reads the parameters and,
        on average, half of the cache for every character."""
        if self.mechanism == "generation":
            cache = self.layers * (self.Tk + 1) * self.E  # keys and values, of half of the places
            return (
                self.Tk
                * self.itemsize
                * (12 * self.layers * self.E**2 + CHARACTERS * self.E + cache)
            )
        return 2 * self.B * self.H * self.Tk * self.D * self.itemsize


def as_case(fields):
    """A case from its fields as JSON keeps them, where tuples are lists."""
    lengths = fields["lengths"]
    return Case(**{**fields, "lengths": lengths and tuple(lengths)})


def dot(B, H, T, D, **options):
    """As many queries as keys."""
    return Case("dot_product", B, H, T, T, D, **options)


def additive(B, Tq, Tk, D):
    """The queries and keys of one head."""
    return Case("additive", B, 1, Tq, Tk, D)


def recurrent(mechanism, B, Tk, Tq, E, D):
    """Sizes of source and target, of an input and of the state."""
    return Case(mechanism, B, 1, Tq, Tk, D, E=E)


def transformer(mechanism, B, T, E, H, **options):
    """Forward and backward at a size of the model and a number of heads."""
    backward = mechanism != "generation"
    return Case(mechanism, B, H, T, T, E // H, E=E, backward=backward, **options)


def both(*cases):
    """Each case forward, then forward + backward."""
    return tuple(replace(case, backward=b) for case in cases for b in (False, True))


# Of a packed batch: uniform in 1..512.
LENGTHS = tuple(np.random.default_rng(0).integers(1, 513, 32).tolist())

# Of monotonic alignments: whole sequences, one of them, and a step of decoding.
MONOTONIC = ((32, 100, 400), (1, 100, 400), (32, 1, 400))

# Of local attention: a window of 21 keys, and longer and longer keys for as many queries.
LOCAL = tuple(
    Case("local", 1, 1, 4096, Tk, 64, width=10, centers=centers)
    for centers in ("monotonic", "random")
    for Tk in (4096, 16384, 65536)
    if centers == "random" or Tk == 4096
)

# Of half precision: decoding, which reads memory, and forward + backward, which computes.
HALVES = Case("dot_product", 1, 32, 1, 4096, 128), dot(1, 8, 1024, 64, backward=True)
HALF_DTYPES = "float16", "bfloat16"

# ---- kinds ----

ROWS = (
    dot(1, 1, 8, 16),
    dot(1, 1, 64, 64),
    dot(8, 8, 32, 64),
    dot(8, 8, 128, 64),
    dot(1, 8, 512, 64),
    dot(1, 8, 512, 64, causal=True),
    dot(1, 8, 2048, 64),
    dot(1, 8, 2048, 64, causal=True),
    dot(1, 8, 4096, 64, causal=True),
    dot(1, 8, 1024, 128),
)


@dataclass(frozen=True)
class Kind:
    """Cases that share a table."""

    name: str
    title: str
    cases: tuple[Case, ...]
    axes: str = "B, H, T, D"  # what the label of a case lists
    rate: str | None = "GFLOP/s"  # "GFLOP/s", "GB/s", "G terms/s"
    limit: str | None = "FMA peak"  # of the machine: "FMA peak", "memory read speed"
    peers: tuple[str, ...] = ("PyTorch", "JAX", "NumPy")
    mean: bool = False  # the geometric means of the ratios are shown
    note: str = ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("forward", "Dot-product attention, forward", ROWS, mean=True),
        Kind(
            "backward",
            "Dot-product attention, forward + backward",
            tuple(replace(case, backward=True) for case in ROWS),
            mean=True,
        ),
        Kind(
            "padding",
            "Padding: 47 % of the keys are valid",
            both(dot(4, 8, 512, 64, lengths=(512, 256, 128, 64))),
            note="attnc takes the lengths, the others a boolean mask. Work counts valid keys only.",
        ),
        Kind(
            "packed",
            "Packed batch: lengths uniform in 1..512",
            both(
                dot(32, 8, 512, 64, lengths=LENGTHS, packed=True),
                dot(32, 8, 512, 64, lengths=LENGTHS, packed=True, causal=True),
            ),
            peers=("attnc padded", "attnc padded keys", "PyTorch"),
            note="attnc gets the sequences one behind the other, as a view of (rows, H, D). The "
            "others get them padded: attnc with the lengths of keys and queries, so that it "
            "computes no other pairs, and with those of keys alone; PyTorch with a boolean mask. "
            "Work counts pairs within a sequence.",
        ),
        Kind(
            "decode",
            "Decoding: one query, a cache of T keys",
            tuple(
                Case("dot_product", B, H, 1, T, D)
                for B, H, T, D in ((1, 32, 4096, 128), (8, 8, 1024, 64), (1, 8, 128, 64))
            ),
            rate="GB/s",
            limit="memory read speed",
            note="Keys and values are read once; the rate is their size by the time. A cache that "
            "fits in the processor's own is read faster than memory.",
        ),
        Kind(
            "additive",
            "Additive attention",
            both(
                additive(32, 10, 10, 128),
                additive(64, 32, 32, 256),
                additive(32, 50, 50, 512),
                additive(16, 128, 128, 256),
                additive(64, 1, 30, 128),
            ),
            axes="B, Tq, Tk, H",
            rate="G terms/s",
            limit=None,
            peers=("PyTorch", "torch.compile", "JAX", "NumPy"),
            note="H is the size of the hidden layer. A term is one tanh; the rate of forward + "
            "backward counts each once. PyTorch, torch.compile and JAX compute it both as "
            "`tanh(...) @ w` and as `(tanh(...) * w).sum(-1)`; the faster of the two stands here.",
        ),
        Kind(
            "cosine",
            "Cosine attention",
            both(Case("cosine", 8, 8, 128, 128, 64), Case("cosine", 1, 8, 1024, 1024, 64)),
            note="The others normalise queries and keys, then use their dot-product attention.",
        ),
        Kind(
            "multiplicative",
            "Multiplicative attention",
            both(
                Case("multiplicative", 8, 8, 128, 128, 64),
                Case("multiplicative", 1, 8, 1024, 1024, 64),
            ),
            note="The others multiply the queries by the weight, then use their dot-product "
            "attention.",
        ),
        Kind(
            "float64",
            "float64",
            both(dot(1, 8, 1024, 64, dtype="float64")),
            note="JAX computes the softmax of its dot-product attention in float32 also here.",
        ),
        Kind(
            "halves",
            "Stored in half precision",
            tuple(replace(case, dtype=dtype) for case in HALVES for dtype in HALF_DTYPES),
            peers=("attnc in float32", "PyTorch"),
            note="Numbers are stored in 16 bits and computed with in float32. Beside it attnc on "
            "the same numbers in float32, and PyTorch's fused attention in the half precision.",
        ),
        Kind(
            "recurrent",
            "Recurrent encoder and attentional decoder",
            (
                *both(
                    *(
                        recurrent(mechanism, *sizes)
                        for mechanism in ("encoder", "decoder")
                        for sizes in (
                            (32, 10, 10, 128, 128),
                            (32, 30, 30, 256, 256),
                            (64, 50, 50, 256, 512),
                        )
                    )
                ),
                replace(recurrent("training", 64, 30, 30, 256, 512), backward=True),
            ),
            axes="B, Ts, Tt, E, H",
            peers=("PyTorch", "JAX"),
            note="GRU in both directions (the target's length does not matter to it); GRU decoder "
            "with additive attention, teacher forced; a whole step of training a translator with "
            "8,000 words, sentences of 20 to 30 of them: embeddings, encoder, decoder, output "
            "layer, cross-entropy, clipping, Adam. Work counts matrix products, those of the "
            "output layer for padding too, which attnc leaves out. PyTorch has `nn.GRU` and, for "
            "the decoder, a loop over `nn.GRUCell`; JAX has `lax.scan`, compiled. The loss of a "
            "step of training is not compared with attnc's, since each starts from "
            "random numbers of its own.",
        ),
        Kind(
            "multihead",
            "Multi-head attention, forward + backward",
            tuple(
                transformer("multihead", *sizes, weights=weights)
                for sizes in ((4, 512, 512, 8), (32, 64, 256, 8))
                for weights in (False, True)
            ),
            axes="B, T, E, H",
            peers=("PyTorch", "torch.compile", "JAX"),
            note="Self-attention of H heads with all four projections, no biases; with weights, "
            "they are returned for each head. PyTorch has `nn.MultiheadAttention`.",
        ),
        Kind(
            "layer",
            "A Transformer's encoder layer, forward + backward",
            tuple(
                transformer("encoder_layer", *sizes, dropout=dropout)
                for sizes in ((16, 128, 256, 8), (4, 512, 512, 8))
                for dropout in (0.0, 0.1)
            ),
            axes="B, T, E, H",
            peers=("PyTorch", "torch.compile", "JAX"),
            note="Multi-head attention and two products of 4 E units with ReLU between, each added "
            "to its input and then normalised. PyTorch has `nn.TransformerEncoderLayer`. JAX drops "
            "no weights of attention, since its fused attention cannot.",
        ),
        Kind(
            "transformer",
            "A step of training a Transformer",
            tuple(
                transformer("transformer", 32, 32, 256, 8, layers=4, dropout=dropout)
                for dropout in (0.0, 0.1)
            ),
            axes="B, T, E, H",
            peers=("PyTorch", "torch.compile", "JAX"),
            note="A translator with so many layers in encoder and decoder, 8,000 words, sentences "
            "of 21 to 32 of them: one embedding for both sides and the output, cross-entropy, "
            "clipping, Adam (PyTorch's fused one). Work counts padding, too, which attnc leaves "
            "out of attention and of the output layer. Each starts from random numbers of its own; "
            "results are not compared.",
        ),
        Kind(
            "generation",
            "Generation with a cache",
            (transformer("generation", 1, 512, 384, 6, layers=6),),
            axes="B, T, E, H",
            rate="GB/s",
            limit="memory read speed",
            peers=("PyTorch",),
            note="A language model of 256 characters writes T of them, one after another. The rate "
            "is the size of the parameters and of the cache at each, by the time. PyTorch has its "
            "own linear and normalising layers and its fused attention, over a cache made "
            "beforehand.",
        ),
        Kind(
            "monotonic",
            "Monotonic alignments",
            both(*(Case("monotonic", B, 1, Tq, Tk, 1) for B, Tq, Tk in MONOTONIC)),
            axes="B, Tq, Tk",
            rate=None,
            limit=None,
            peers=("PyTorch", "JAX"),
            note="attnc has the exact recurrence. PyTorch has the paper's form with products and "
            "sums over all keys at once, one query after the other; JAX both, compiled; the "
            "faster stands here. The products of many keys vanish and are cut at 1e-10, so that "
            "results agree for few keys only, and are compared there.",
        ),
        Kind(
            "local",
            "Local attention",
            both(*LOCAL),
            axes="H, Tq, Tk, D",
            rate=None,
            limit=None,
            peers=("attnc global", "PyTorch"),
            note="Dot-product scores in windows around centers that are the numbers of the queries "
            "or uniform over the keys, times a Gaussian. Beside it attnc's attention to all keys, "
            "which computes something else; PyTorch has a mask and a factor of (Tq, Tk).",
        ),
        Kind(
            "jvp",
            "Forward mode",
            tuple(replace(dot(1, 8, 1024, 64), tangents=which) for which in ("all", "query")),
            peers=("attnc forward", "PyTorch"),
            note="The context and its tangent, with the tangents of query, key and value or of the "
            "query alone. Beside it attnc's forward pass, without; PyTorch has `torch.func.jvp` of "
            "the plain formula, since its fused attention has no forward mode.",
        ),
        Kind(
            "overhead",
            "A small call through the bridges",
            both(dot(1, 1, 8, 16)),
            rate=None,
            limit=None,
            peers=("attnc in PyTorch", "attnc in JAX", "attnc in autograd"),
            note="Where there is hardly anything to compute, what a bridge takes shows: in PyTorch "
            "eager, in JAX a compiled function, in autograd a call on boxes.",
        ),
        Kind(
            "bridges",
            "Large shapes through PyTorch",
            (
                dot(1, 8, 2048, 64, backward=True),
                replace(recurrent("encoder", 64, 50, 50, 256, 512), backward=True),
                replace(recurrent("decoder", 64, 50, 50, 256, 512), backward=True),
                transformer("multihead", 4, 512, 512, 8),
                replace(recurrent("training", 64, 30, 30, 256, 512), backward=True),
            ),
            axes="sizes",
            rate=None,
            limit=None,
            peers=("attnc in PyTorch", "PyTorch"),
            note="What the cases above time, by attnc on arrays, by `attnc.torch` on tensors with "
            "PyTorch's own backward pass, and by PyTorch alone. The process of `attnc.torch` has "
            "computed each case with PyTorch's own functions before, so that the threads of both "
            "are there. The step of training has PyTorch's embeddings, clipping and Adam around "
            "attnc's encoder, decoder and loss.",
        ),
        Kind(
            "small",
            "A small call",
            both(additive(1, 4, 6, 8)),
            axes="B, Tq, Tk, H",
            rate=None,
            limit=None,
            peers=("PyTorch", "torch.compile", "JAX", "NumPy"),
            note="Additive attention where there is hardly anything to compute. The smallest case "
            "of dot-product attention is in the first two tables.",
        ),
        Kind(
            "threads",
            "Threads",
            both(dot(1, 8, 2048, 64)),
            limit=None,
            peers=(),
            note="attnc alone, with more and more threads.",
        ),
        Kind(
            "growth",
            "Growth with the length, forward + backward",
            tuple(
                dot(1, 1, T, 64, backward=True, timed=T <= 16384)
                for T in (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
            ),
            peers=("PyTorch", "NumPy"),
            note="Time grows as T², extra memory as T. At T = 32768 only memory is measured.",
        ),
    )
}
