"""What the parts of each linear cost, and the inverse factors that their removal takes.

van der Ouderaa et al., The LLM Surgeon (arXiv 2312.17244); official code
Qualcomm-AI-research/llm-surgeon at 7267344, whose `pruner.WGA` also cuts out first what is dead: a
row or column of zeros, or without any gradient or input.
"""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from ...models.anatomy import find_blocks, weight_of
from .fisher import SecondMoment, part_of
from .layer import Layer
from .removal_costs import column_costs, element_costs, row_costs

CRITERIA = ("surgeon", "k-obd", "l-obd")
_BY_ROWS_COLUMNS = "rows+columns"
STRUCTURES = ("elements", _BY_ROWS_COLUMNS)


def study(
    linear: torch.nn.Module,
    inputs: SecondMoment,
    gradients: SecondMoment,
    *,
    structure: str,
    criterion: str,
    damping: float,
) -> Layer:
    """Inverse factors and costs of one linear.

    Args:
        linear: the module.
        inputs: second moment of its inputs.
        gradients: second moment of the gradients of its outputs.
        structure: one of `STRUCTURES`.
        criterion: one of `CRITERIA`.
        damping: as for `SecondMoment.inverse`.
    """
    has_bias = linear.bias is not None
    W = weight_of(linear).float()
    if has_bias:
        W = torch.cat([W, linear.bias.data.float()[:, None]], dim=1)
    # F = G (x) A; L-OBD takes G = I.
    A = inputs.matrix(has_bias)
    G = gradients.matrix()
    if criterion == "l-obd":
        G = torch.eye(len(G), device=G.device)
    # What is dead is left out of all that follows.
    alive_rows = (W != 0).any(1) & (G.diagonal() > 0)
    alive_columns = (W != 0).any(0) & (A.diagonal() > 0)
    layer = Layer(linear, W, alive_rows.nonzero().flatten(), alive_columns.nonzero().flatten())
    A = part_of(A, layer.columns, layer.columns)
    G = part_of(G, layer.rows, layer.rows)
    if criterion == "surgeon":
        # The others make up for what goes: g = 1 / [G^-1]_rr and a = 1 / [A^-1]_cc.
        G_inverse = gradients.inverse(damping, alive_rows)
        A_inverse = inputs.inverse(damping, alive_columns, has_bias)
        layer.inverses = (G_inverse, A_inverse)
        g = 1 / G_inverse.diagonal()
        a = 1 / A_inverse.diagonal()
    else:
        # The others stay: g = G_rr and a = A_cc.
        g = G.diagonal()
        a = A.diagonal()
    if structure == _BY_ROWS_COLUMNS:
        layer.costs = _costs_of_rows_columns(layer, A, G, g, a)
    else:
        layer.costs = _costs_of_entries(layer, g, a)
    return layer


def study_model(
    model: PreTrainedModel,
    inputs: Mapping[str, SecondMoment],
    gradients: dict[str, SecondMoment],
    *,
    structure: str,
    criterion: str,
    damping: float,
) -> list[Layer]:
    """Inverse factors and costs of every linear that has run.

    Args:
        model: the model.
        inputs: name of a linear -> second moment of its inputs.
        gradients: name of a linear -> second moment of the gradients of its outputs; empty
            afterwards, so that its memory is freed.
        structure: as for `study`, like `criterion` and `damping`.
    """
    layers = []
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            # A linear that no token has reached, e.g. of an idle expert, has no factors.
            if name in inputs:
                layers.append(
                    study(
                        linear,
                        inputs[name],
                        gradients.pop(name),
                        structure=structure,
                        criterion=criterion,
                        damping=damping,
                    )
                )
    return layers


def _costs_of_rows_columns(
    layer: Layer, A: torch.Tensor, G: torch.Tensor, g: torch.Tensor, a: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Costs of rows `[R]` and columns `[C]`; factors and vectors are of the living part.

    Dead rows and columns cost 0. Those that are already zero cost -1, so that they go first. A bias
    is never a candidate.
    """
    out_features, in_features = weight_of(layer.linear).shape
    rows = layer.W.new_zeros(out_features)
    columns = layer.W.new_zeros(layer.W.shape[1])
    living = layer.living
    rows[layer.rows] = row_costs(living, A, g)
    columns[layer.columns] = column_costs(living, G, a)
    # What an earlier shot has removed goes again before anything else.
    rows[(layer.W == 0).all(1)] = -1
    columns[(layer.W == 0).all(0)] = -1
    return rows, columns[:in_features]


def _costs_of_entries(layer: Layer, g: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Costs of entries `[R, C]`; the vectors are of the living part.

    Dead entries cost 0. Those that are already zero cost -1, so that they go first. A bias is never
    a candidate.
    """
    in_features = weight_of(layer.linear).shape[1]
    costs = torch.zeros_like(layer.W)
    costs[layer.rows[:, None], layer.columns] = element_costs(layer.living, g, a)
    return costs.masked_fill_(layer.W == 0, -1)[:, :in_features]
