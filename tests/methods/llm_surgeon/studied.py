"""A small linear with all that a shot can meet: what is dead, what is zero already, a bias."""

import torch

from prunebook.methods.llm_surgeon.fisher import SecondMoment
from prunebook.methods.llm_surgeon.study import study


def studied_linear(bias=True, structure="elements", criterion="surgeon"):
    """A linear `[4, 6]` whose row 1 has no gradient and whose input 2 is never there, studied."""
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(6, 4, bias=bias).requires_grad_(False)
    linear.weight.copy_(torch.randn(4, 6, generator=generator))
    if bias:
        linear.bias.copy_(torch.randn(4, generator=generator))
    # a row of zeros from an earlier shot, though it has a gradient
    linear.weight[3] = 0
    moments = []
    for width, dead in ((6, 2), (4, 1)):
        values = torch.randn(1, 50, width, generator=generator)
        values[..., dead] = 0
        moment = SecondMoment(width, torch.device("cpu"))
        moment.update(values)
        moments.append(moment)
    return study(linear, *moments, structure=structure, criterion=criterion, damping=0.01)
