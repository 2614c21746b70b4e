"""attnc through its bridge to PyTorch, as a contender of attnc itself and of PyTorch's own."""

import torch
from torch import nn

import attnc.torch
from benchmarks import with_torch
from benchmarks.inputs import VOCABULARY, sentences


def version():
    return torch.__version__


class Translator(nn.Module):
    """The model of `recurrent_torch`, with attnc's encoder, decoder and loss."""

    def __init__(self, E, D):
        super().__init__()
        self.source = nn.Embedding(VOCABULARY, E, padding_idx=0)
        self.target = nn.Embedding(VOCABULARY, E, padding_idx=0)
        self.encoder = attnc.torch.nn.GRU(E, D // 2, bidirectional=True, rng=0)
        self.bridge = nn.Linear(D, D)
        self.decoder = attnc.torch.nn.AttentionDecoder(E, D, D, attention_size=D, rng=0)
        self.weight = nn.Parameter(torch.randn(D, VOCABULARY) / D**0.5)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))

    def forward(self, source, lengths, target, labels):
        memory, final = self.encoder(self.source(source), lengths=lengths)
        state = torch.tanh(self.bridge(torch.cat(list(final), -1)))[None]
        outputs = self.decoder(self.target(target), memory, state, key_lengths=lengths)[0]
        return attnc.torch.linear_cross_entropy(
            outputs, self.weight, labels, bias=self.bias, ignore_index=0
        )


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    if case.mechanism == "training":
        return {"": training_step(case)}
    for own in with_torch.prepare(case, inputs).values():
        own()  # so that the threads of both are there, as in the process of a user
    torch.set_grad_enabled(case.backward)
    (*arguments,), dy = inputs
    tensors = [torch.from_numpy(x).requires_grad_(case.backward) for x in arguments]
    dy = torch.from_numpy(dy)
    run, wanted = function(case, tensors)

    def forward_and_backward():
        y = run()
        return y, *torch.autograd.grad(y, wanted, dy)

    return {"": forward_and_backward if case.backward else lambda: (run(),)}


def function(case, tensors):
    """What computes the output of a case, and the tensors whose gradients are wanted."""
    if case.mechanism == "encoder":
        x, *parameters = tensors
        gru = attnc.torch.gru
        return lambda: gru(x, parameters, bidirectional=True).outputs, tensors
    if case.mechanism == "decoder":
        x, memory, *cell = tensors
        cell, parameters = cell[:-3], cell[-3:]
        named = dict(zip(("query_weight", "key_weight", "score_vector"), parameters, strict=True))
        decoder = attnc.torch.attention_decoder
        return lambda: decoder(x, memory, cell, **named).outputs, tensors
    if case.mechanism == "multihead":
        x, *weights = tensors
        layer = attnc.torch.nn.MultiHeadAttention(case.E, case.H, rng=0)
        names = "query_weight", "key_weight", "value_weight", "output_weight"
        parameters = [getattr(layer, name) for name in names]
        with torch.no_grad():
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.copy_(weight)
        return lambda: layer(x), [x, *parameters]
    attention = getattr(attnc.torch, case.mechanism + "_attention")
    return lambda: attention(*tensors), tensors


def results(case, output):
    """What a call returned, as attnc has it."""
    return [x.detach().numpy() for x in output] if case.compared else []


def training_step(case):
    """One step of training a translator: a call updates the parameters, and returns the loss."""
    torch.set_grad_enabled(True)
    torch.manual_seed(0)
    model = Translator(case.E, case.D)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    source, lengths, target = (torch.from_numpy(array) for array in sentences(case))

    def step():
        loss = model(source, lengths, target[:, :-1], target[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return (loss,)

    return step
