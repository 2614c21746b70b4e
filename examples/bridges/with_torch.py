"""The same translator with PyTorch: modules of attnc's layers among PyTorch's own."""

import numpy as np
import torch
from reversing import EMBEDDING, RATE, STATE, VOCABULARY, batch, first_parameters, show
from torch import nn

from attnc.torch.nn import GRU, AttentionDecoder


class Translator(nn.Module):
    """Encoder, decoder with attention, and what is around them."""

    def __init__(self):
        super().__init__()
        self.source_embedding = nn.Embedding(VOCABULARY, EMBEDDING, padding_idx=0)
        self.target_embedding = nn.Embedding(VOCABULARY, EMBEDDING, padding_idx=0)
        self.encoder = GRU(EMBEDDING, STATE // 2, bidirectional=True)
        self.bridge = nn.ModuleList([nn.Linear(STATE, STATE)])
        self.decoder = AttentionDecoder(EMBEDDING, STATE, STATE)
        self.output = nn.Linear(STATE, VOCABULARY)

    def forward(self, source, lengths, target):
        """The logits of the words that follow those of the target."""
        memory, final = self.encoder(self.source_embedding(source), lengths=lengths)
        state = torch.tanh(self.bridge[0](torch.cat([*final], -1)))[None]
        words = self.target_embedding(target)
        outputs, weights, state = self.decoder(words, memory, state, key_lengths=lengths)
        return self.output(outputs)


def first_state():
    """The parameters that the other loops begin with, as PyTorch has them."""
    arrays = first_parameters()
    for name in ("bridge.0.weight", "output.weight"):
        arrays[name] = arrays[name].T  # a Linear of PyTorch has its outputs first
    return {name: torch.tensor(array) for name, array in arrays.items()}


def train(steps):
    """The loss of each step."""
    rng, model = np.random.default_rng(0), Translator()
    model.load_state_dict(first_state())
    optimizer, losses = torch.optim.Adam(model.parameters(), RATE), []
    for _ in range(steps):
        source, lengths, target = map(torch.from_numpy, batch(rng))
        logits = model(source, lengths, target[:, :-1])
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    show(train(500))
