"""Multi-head attention and Transformers with PyTorch: its own modules."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.inputs import CHARACTERS, VOCABULARY, sentences


def prepare(case, inputs, compiled=lambda function: function):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    torch.manual_seed(0)
    torch.set_grad_enabled(case.mechanism != "generation")
    make = {"transformer": training_step, "generation": generation}.get(case.mechanism)
    if make:
        return {"": make(case, compiled)}
    (x, *arrays), dy = inputs
    x, dy = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)
    module = (multihead if case.mechanism == "multihead" else encoder_layer)(case, arrays)
    module.train()  # in evaluation nn.TransformerEncoderLayer has no gradients
    wanted = [x, *module.parameters()]
    if case.mechanism == "multihead":

        def run():
            return module(x, x, x, need_weights=case.weights, average_attn_weights=False)[0]

    else:

        def run():
            return module(x)

    run = compiled(run)

    def forward_and_backward():
        y = run()
        return y, *torch.autograd.grad(y, wanted, dy)

    return {"": forward_and_backward}


def results(case, output):
    """What a call returned, as attnc has it: heads are an axis, matrices are transposed."""
    if not case.compared:
        return []
    y, dx, *gradients = (x.detach().numpy() for x in output)
    return [y, dx, *arrays_of(case, gradients)]


def arrays_of(case, parameters):
    """In the order of `inputs`: query, key, value and output weights, then the rest as it is."""
    projections, output, *rest = parameters
    E, H = case.E, case.H
    heads = [w.T.reshape(E, H, E // H) for w in projections.reshape(3, E, E)]
    return [*heads, output.T.reshape(H, E // H, E), *(x.T for x in rest)]


def fill(parameters, case, arrays):
    """Put arrays in attnc's shapes and order into parameters in PyTorch's."""
    E = case.E
    query, key, value, output, *rest = (torch.from_numpy(x) for x in arrays)
    projections = torch.cat([w.reshape(E, E).T for w in (query, key, value)])
    with torch.no_grad():
        ready = projections, output.reshape(E, E).T, *(x.T if x.ndim == 2 else x for x in rest)
        for parameter, array in zip(parameters, ready, strict=True):
            parameter.copy_(array)


def multihead(case, arrays):
    module = nn.MultiheadAttention(case.E, case.H, bias=False, batch_first=True)
    fill(module.parameters(), case, arrays)
    return module


def encoder_layer(case, arrays):
    module = nn.TransformerEncoderLayer(
        case.E, case.H, 4 * case.E, case.dropout, bias=False, batch_first=True
    )
    fill(module.parameters(), case, arrays)
    return module


# ---- a step of training ----


class Translator(nn.Module):
    """The same model as `attnc.Transformer`: one embedding for both sides and the output."""

    def __init__(self, case):
        super().__init__()
        self.size = case.E
        self.embedding = nn.Embedding(VOCABULARY, case.E, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.transformer = nn.Transformer(
            case.E, case.H, case.layers, case.layers, 4 * case.E, case.dropout, batch_first=True
        )
        self.dropout = nn.Dropout(case.dropout)
        places = torch.arange(case.Tk)[:, None]
        angles = places / 10000 ** (torch.arange(0, case.E, 2) / case.E)
        self.places = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        self.causal = nn.Transformer.generate_square_subsequent_mask(case.Tq)

    def embed(self, tokens):
        return self.dropout(self.embedding(tokens) * self.size**0.5 + self.places)

    def forward(self, source, padding, target):
        outputs = self.transformer(
            self.embed(source),
            self.embed(target),
            tgt_mask=self.causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return outputs @ self.embedding.weight.T


def training_step(case, compiled):
    """One step of training a translator: a call updates the parameters, and returns the loss."""
    model = Translator(case)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    loss_of = nn.CrossEntropyLoss(ignore_index=0)
    source, lengths, target = (torch.from_numpy(array) for array in sentences(case))
    # Masks of one kind: a padding mask beside a causal one of floats is of floats, too.
    padding = torch.zeros(source.shape).masked_fill(
        torch.arange(case.Tk) >= lengths[:, None], -torch.inf
    )
    run = compiled(model)

    def step():
        logits = run(source, padding, target[:, :-1])
        loss = loss_of(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return (loss,)

    return step


# ---- generation ----


class Block(nn.Module):
    """A layer of a language model, norm first, with a cache of keys and values made beforehand."""

    def __init__(self, case):
        super().__init__()
        self.heads = case.H
        self.first, self.second = nn.LayerNorm(case.E), nn.LayerNorm(case.E)
        self.projections = nn.Linear(case.E, 3 * case.E)
        self.output = nn.Linear(case.E, case.E)
        self.wide, self.narrow = nn.Linear(case.E, 4 * case.E), nn.Linear(4 * case.E, case.E)
        self.cache = torch.zeros(2, 1, case.H, case.Tk, case.E // case.H)

    def forward(self, x, place):
        heads = self.projections(self.first(x)).view(1, 3, self.heads, 1, -1)
        query, key, value = heads.unbind(1)
        self.cache[0, :, :, place] = key[:, :, 0]
        self.cache[1, :, :, place] = value[:, :, 0]
        keys, values = self.cache[:, :, :, : place + 1]
        x = x + self.output(scaled_dot_product_attention(query, keys, values).view(1, 1, -1))
        return x + self.narrow(torch.relu(self.wide(self.second(x))))


def generation(case, compiled):
    """Tk tokens, each the likeliest after those before it, from nothing but a first one."""
    del compiled  # which would compile anew for each length of the cache
    blocks = [Block(case) for _ in range(case.layers)]
    embedding, places = nn.Embedding(CHARACTERS, case.E), nn.Embedding(case.Tk, case.E)
    last = nn.LayerNorm(case.E)

    def generate():
        token, tokens = torch.zeros(1, 1, dtype=torch.long), []
        for place in range(case.Tk):
            x = embedding(token) + places.weight[place]
            for block in blocks:
                x = block(x, place)
            token = (last(x) @ embedding.weight.T).argmax(-1)
            tokens.append(token)
        return (torch.cat(tokens),)

    return generate
