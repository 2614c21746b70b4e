"""The recurrent cases with PyTorch: `nn.GRU`, and for the decoder a loop over `nn.GRUCell`."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.inputs import VOCABULARY, sentences

CELL = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


class Decoder(nn.Module):
    """Bahdanau's decoder: the weights of the query and the key have no biases."""

    def __init__(self, E, D):
        super().__init__()
        self.cell = nn.GRUCell(E + D, D)
        self.query, self.key = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.score = nn.Parameter(torch.randn(D) / D**0.5)

    def forward(self, words, memory, state, mask=None):
        key, outputs = self.key(memory), []
        for t in range(words.shape[1]):
            scores = torch.tanh(self.query(state)[:, None] + key) @ self.score
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            context = torch.bmm(torch.softmax(scores, -1)[:, None], memory)[:, 0]
            state = self.cell(torch.cat([words[:, t], context], -1), state)
            outputs.append(state)
        return torch.stack(outputs, 1)


class Translator(nn.Module):
    """The same model as `attnc.Seq2Seq`."""

    def __init__(self, E, D):
        super().__init__()
        self.source = nn.Embedding(VOCABULARY, E, padding_idx=0)
        self.target = nn.Embedding(VOCABULARY, E, padding_idx=0)
        self.encoder = nn.GRU(E, D // 2, batch_first=True, bidirectional=True)
        self.bridge, self.decoder = nn.Linear(D, D), Decoder(E, D)
        self.output = nn.Linear(D, VOCABULARY)

    def forward(self, source, lengths, target):
        packed = pack_padded_sequence(
            self.source(source), lengths, batch_first=True, enforce_sorted=False
        )
        memory, final = self.encoder(packed)
        memory, _ = pad_packed_sequence(memory, batch_first=True, total_length=source.shape[1])
        state = torch.tanh(self.bridge(torch.cat(list(final), -1)))
        mask = torch.arange(source.shape[1]) < lengths[:, None]
        return self.output(self.decoder(self.target(target), memory, state, mask))


def set_cell(module, arrays, suffix=""):
    """Put the four arrays of a cell, as attnc has them, into a module; its parameters for them."""
    parameters = [getattr(module, name + suffix) for name in CELL]
    with torch.no_grad():
        for parameter, array in zip(parameters, arrays, strict=True):
            parameter.copy_(
                torch.from_numpy(array).T if array.ndim == 2 else torch.from_numpy(array)
            )
    return parameters


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    if case.mechanism == "training":
        return {"": training_step(case)}
    torch.set_grad_enabled(case.backward)
    (x, *arrays), doutputs = inputs
    x, doutputs = torch.from_numpy(x).requires_grad_(case.backward), torch.from_numpy(doutputs)
    if case.mechanism == "encoder":
        module = nn.GRU(case.E, case.D, batch_first=True, bidirectional=True)
        wanted = [x, *set_cell(module, arrays[:4], "_l0")]
        wanted += set_cell(module, arrays[4:], "_l0_reverse")

        def run():
            return module(x)[0]

    else:
        memory, *cell, query_weight, key_weight, score_vector = arrays
        module = Decoder(case.E, case.D)
        memory = torch.from_numpy(memory).requires_grad_(case.backward)
        own = [module.query.weight, module.key.weight, module.score]
        with torch.no_grad():
            for parameter, array in zip(
                own, (query_weight.T, key_weight.T, score_vector), strict=True
            ):
                parameter.copy_(torch.from_numpy(array))
        wanted = [x, memory, *set_cell(module.cell, cell), *own]
        first = torch.zeros(case.B, case.D)

        def run():
            return module(x, memory, first)

    def forward_and_backward():
        outputs = run()
        return outputs, *torch.autograd.grad(outputs, wanted, doutputs)

    return {"": forward_and_backward if case.backward else lambda: (run(),)}


def results(case, output):
    """What a call returned, as attnc has it: matrices of weights are transposed."""
    if case.mechanism == "training":
        return []
    arrays = [x.detach().numpy() for x in output]
    return [array.T if array.ndim == 2 else array for array in arrays]


def training_step(case):
    """One step of training a translator: a call updates the parameters, and returns the loss."""
    torch.set_grad_enabled(True)
    torch.manual_seed(0)
    model = Translator(case.E, case.D)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss_of = nn.CrossEntropyLoss(ignore_index=0)
    source, lengths, target = (torch.from_numpy(array) for array in sentences(case))

    def step():
        logits = model(source, lengths, target[:, :-1])
        loss = loss_of(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return (loss,)

    return step
