"""What test_torch_nn.py runs in other processes; a module of its own, for they import it anew."""

import torch

import attnc.torch


class Encoded(torch.utils.data.Dataset):
    """Sequences that a module encodes where they are loaded."""

    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 6

    def __getitem__(self, k):
        with torch.no_grad():
            return self.module(torch.full((1, 5, 3), float(k)))[0][0]


class Model(torch.nn.Module):
    """A module of attnc under one of PyTorch's."""

    def __init__(self):
        super().__init__()
        self.encoder = attnc.torch.nn.GRU(3, 4, bidirectional=True, dtype=torch.float64)
        self.output = torch.nn.Linear(8, 2, dtype=torch.float64)

    def forward(self, x):
        return self.output(self.encoder(x)[0])


def losses_of(model, part):
    """Those of some steps with a part of every batch."""
    given = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    losses = []
    for _ in range(3):
        model.zero_grad()
        loss = (model(given[part]) - 1).square().mean()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.5 * parameter.grad
        losses.append(loss.item())
    return losses


def distributed(rank, path, queue):
    """Put the losses of one of two processes, which has half of every batch."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=2
    )
    torch.manual_seed(rank)  # DDP makes the parameters of both those of the first
    # No name keeps the model: it must be freed before the group that it uses.
    losses = losses_of(torch.nn.parallel.DistributedDataParallel(Model()), slice(rank, None, 2))
    queue.put((rank, losses))
    torch.distributed.destroy_process_group()
