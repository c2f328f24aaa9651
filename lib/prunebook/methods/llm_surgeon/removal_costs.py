"""What removing one entry, row or column of a linear costs: the predicted rise of the loss.

van der Ouderaa et al., The LLM Surgeon (arXiv 2312.17244): `theta_q^T ([F^-1]_qq)^-1 theta_q / 2`
for the entries q that go, with `F = G (x) A`. The vectors g and a say what the other entries do:
where they make up for the loss, g is `1 / [G^-1]_rr` and a is `1 / [A^-1]_cc`; where they stay as
they are, `G_rr` and `A_cc`.
"""

import torch
import torch.nn.functional as F


def element_costs(weight: torch.Tensor, g: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """`W_rc^2 g_r a_c / 2`, the cost of each entry, `[out, in]`.

    Args:
        weight: `[out, in]`.
        g: `[out]`.
        a: `[in]`.
    """
    return weight.square() * (g[:, None] / 2) * a


def row_costs(weight: torch.Tensor, A: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """`W_r: A W_r:^T g_r / 2`, the cost of each row, `[out]`.

    Args:
        weight: `[out, in]`.
        A: `[in, in]`, symmetric.
        g: `[out]`.
    """
    # A quadratic form of a factor is not negative; rounding may make it so.
    return torch.linalg.vecdot(F.linear(weight, A), weight).clamp_(min=0) * (g / 2)


def column_costs(weight: torch.Tensor, G: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """`W_:c^T G W_:c a_c / 2`, the cost of each column, `[in]`.

    Args:
        weight: `[out, in]`.
        G: `[out, out]`, symmetric.
        a: `[in]`.
    """
    return torch.linalg.vecdot(F.linear(weight.T, G), weight.T).clamp_(min=0) * (a / 2)


def group_costs(costs: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """The cost of making each group n:m: the sum of its `m - n` smallest, `[out, in / m]`.

    Args:
        costs: costs of entries, `[out, in]`.
        n: entries kept of a group.
        m: entries of a group, consecutive in a row.
    """
    # [out, in / m, m]: the cheapest of each group would go
    return costs.unflatten(1, (-1, m)).topk(m - n, dim=2, largest=False).values.sum(2)
