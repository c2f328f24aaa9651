"""What a model predicts, and how far its predictions are from those of its teacher.

Park et al., K-prune (ICLR 2024, arXiv 2308.03449), equation 4 as numbered in its first version. The
teacher is the model before anything was cut.
"""

import torch
from transformers import PreTrainedModel

from ...errors import UserError
from ...passes.backward import windows_by_batch
from ...passes.precision import matmul_precision
from ...recovery.kd_loss import LogitLoss

# The target of a position that has no word to predict.
_NO_WORD = -100


@torch.no_grad()
def predictions(
    model: PreTrainedModel, tokens: torch.Tensor, precision: str = "exact"
) -> list[torch.Tensor]:
    """The logits of calibration windows, batch by batch.

    Args:
        model: a classifier or a causal language model.
        tokens: int64 `[n, length]`.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).

    Returns:
        `[windows, classes]` of a classifier, `[windows, length, vocabulary]` of a causal model, for
        the batches of `windows_by_batch`.

    Raises:
        UserError: a model that predicts nothing, bad tokens.
    """
    logits = []
    for batch in windows_by_batch(model, tokens):
        with matmul_precision(model.device, precision):
            output = model(input_ids=batch.to(model.device))
        if output.get("logits") is None:
            raise UserError(
                f"{type(model).__name__} predicts nothing whose change could be measured; use a "
                "model with a head, e.g. BertForSequenceClassification fine-tuned on your task, "
                "or a causal language model"
            )
        logits.append(output.logits)
    return logits


def divergence(
    logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float
) -> torch.Tensor:
    """`gamma^2 KL(student || teacher)` of predictions (equation 4), summed over windows.

    Of a causal model it is averaged over the positions of each window, which is ours.

    Args:
        logits: the student's, `[windows, classes]` or `[windows, length, vocabulary]`.
        teacher_logits: the teacher's, of the same shape.
        temperature: gamma, which divides the logits.
    """
    rows = logits.flatten(0, -2)
    # The loss overwrites the teacher's rows with its gradient: it gets a copy.
    teacher_rows = teacher_logits.reshape(-1, logits.shape[-1]).clone()
    no_words = torch.full((len(rows),), _NO_WORD, device=rows.device)
    mean, _ = LogitLoss.apply(rows, teacher_rows, no_words, "reverse", temperature, 0.0)
    return mean * len(logits)
