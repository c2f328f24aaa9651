"""Refit the output matrix of a sublayer, by least squares, to what the sublayer lacks (KPWT).

Park et al., K-prune (ICLR 2024, arXiv 2308.03449), its weight tuning. `refit_examples` measures
what is lacking.
"""

from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

from ...errors import UserError, not_finite
from ...models.anatomy import Block, all_sublayers, sublayers


def output_matrix(step: Block, of_mlp: bool) -> nn.Linear:
    """The output matrix of one sublayer of a block: the MLP's, or the attention's."""
    parts = sublayers(step.module)
    if of_mlp:
        return parts.last
    return parts.out


def check_length(model: PreTrainedModel, tokens: torch.Tensor) -> None:
    """Raise a `UserError` for fewer tokens `[n, length]` than inputs of the widest output matrix.

    Its weights would then fit the text whatever they were before.
    """
    widest = 0
    for parts in all_sublayers(model):
        widest = max(widest, parts.out.in_features, parts.last.in_features)
    if tokens.numel() < widest:
        raise UserError(
            f"calibration of {tokens.numel()} tokens cannot refit {widest} inputs; give at least "
            "as many"
        )


def refit(
    linear: nn.Linear, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], damping: float
) -> None:
    """Change the weights of an output matrix so that it adds what is lacking; its bias stays.

    Least squares by the normal equations of the change, so that what is right already stays.

    Args:
        linear: output matrix `[out, in]`, changed in place.
        pairs: A and the states that it lacks, as from `refit_examples.examples`.
        damping: fraction of the mean diagonal of `A^T A` that is added to its diagonal.

    Raises:
        UserError: activations that are not finite, or too little damping for inputs that depend on
            each other.
    """
    gram = 0
    right = 0
    for a, lacking in pairs:
        # In float64: normal equations square the condition number.
        a = a.double()
        lacking = lacking.double()
        gram = gram + a.T @ a
        right = right + a.T @ lacking
    if not (gram.isfinite().all() and right.isfinite().all()):
        raise not_finite("activations of a sublayer to refit")
    # (A^T A + damping I) dW = A^T (what is lacking)
    gram.diagonal().add_(damping * gram.diagonal().mean() + torch.finfo(torch.float64).tiny)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        raise UserError(
            f"{len(gram)} inputs of a sublayer to refit depend on each other, which damping "
            f"{damping:g} is too small for; use more, e.g. 1e-6, or more calibration text"
        )
    linear.weight.add_(torch.cholesky_solve(right, factor).T)
