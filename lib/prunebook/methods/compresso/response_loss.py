"""The loss of Compresso: that of the tokens of a response, after its instruction."""

import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import PreTrainedModel

from ...data.token_check import check_tokens
from ...passes.backward import next_token_loss
from ...passes.precision import matmul_precision
from ...recovery.training import Loss
from .instruction_data import IGNORED, check_instructions


def checked_loss(model: PreTrainedModel, data: torch.Tensor) -> Loss:
    """The loss to train with on some data: of the labelled tokens, or of every next token.

    Args:
        model: a causal language model.
        data: int64 `[n, length, 2]`, token ids and labels, or `[n, length]` without labels.

    Raises:
        UserError: data that does not fit the model.
    """
    if isinstance(data, torch.Tensor) and data.ndim == 3:
        check_instructions(model, data)
        return response_loss
    check_tokens(model, data, "data")
    return next_token_loss


def response_loss(
    model: PreTrainedModel, batch: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """Negative log-likelihood of the labelled tokens in nats, in float32.

    Args:
        model: a causal language model.
        batch: int64 `[windows, length, 2]`, token ids and labels.
        reduction: as for `cross_entropy`: `mean` over the labelled tokens, or `none` for
            `[windows, length - 1]` with 0 where there is no label.
    """
    logits = model(input_ids=batch[..., 0], use_cache=False).logits[:, :-1].float()
    # Each position predicts the next token; one without a label adds nothing.
    labels = batch[:, 1:, 1].to(logits.device)
    return F.cross_entropy(
        logits.transpose(1, 2), labels, reduction=reduction, ignore_index=IGNORED
    )


@torch.no_grad()
def response_nll(
    model: PreTrainedModel,
    windows: torch.Tensor,
    precision: str = "exact",
    progress: str | None = None,
) -> torch.Tensor:
    """Mean negative log-likelihood of the response of each window in nats a token.

    Args:
        model: a causal language model.
        windows: int64 `[n, length, 2]`, as `instruction_windows` gives them.
        precision: `exact` (the model's dtype) or `fast` (products in bfloat16).
        progress: label of a progress bar; None for no bar.

    Returns:
        float64 `[n]`, on the CPU.
    """
    # One window at a time: a mean over several would weigh them by their labels.
    means = []
    for window in tqdm(windows.to(model.device), desc=progress, disable=progress is None):
        with matmul_precision(model.device, precision):
            means.append(response_loss(model, window[None]).double().cpu())
    return torch.stack(means)
