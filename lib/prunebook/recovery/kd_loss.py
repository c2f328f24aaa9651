"""The loss of distillation on logits, with its gradient, a few tokens at a time."""

import torch
import torch.nn.functional as F

DIRECTIONS = ("forward", "reverse")
ROWS_PER_CHUNK = 32  # tokens at a time: 6 MB of float32 at a vocabulary of 49,152


class LogitLoss(torch.autograd.Function):
    """`(KL + next_token * NLL, KL)` of a student's logits beside a teacher's, as scalars.

    KL is averaged over all tokens, NLL over those with a target. Both are computed with their
    gradient a few tokens at a time, in float32 or wider. The gradient takes the place of the
    teacher's logits where their dtype allows it, so that no third `[T, V]` is held.

    Args:
        student: logits `[T, V]` that get a gradient.
        teacher: logits `[T, V]`; they are overwritten.
        targets: int64 `[T]`, ids of the next tokens; -100 for none.
        direction: `forward` for KL(teacher || student), `reverse` for KL(student || teacher).
        temperature: tau; logits are divided by it, and KL is multiplied by tau^2.
        next_token: weight of NLL.
    """

    @staticmethod
    def forward(ctx, student, teacher, targets, direction, temperature, next_token):
        gradient = teacher if teacher.dtype is student.dtype else torch.empty_like(student)
        wide = torch.promote_types(student.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=student.device)
        divergence = torch.zeros((), dtype=wide, device=student.device)
        predicted = max(1, int((targets >= 0).sum()))
        for first in range(0, len(student), ROWS_PER_CHUNK):
            rows = slice(first, first + ROWS_PER_CHUNK)
            with torch.enable_grad():
                z = student[rows].detach().to(wide).requires_grad_()
                log_q = (z / temperature).log_softmax(1)
                log_p = (teacher[rows].to(wide) / temperature).log_softmax(1)
                if direction == "reverse":
                    log_p, log_q = log_q, log_p
                # KL(p || q) = sum p (log p - log q)
                kl = torch.linalg.vecdot(log_p.exp(), log_p - log_q).sum() * (
                    temperature**2 / len(student)
                )
                loss = kl
                if next_token:
                    nll = F.cross_entropy(z, targets[rows], reduction="sum")
                    loss = kl + nll * (next_token / predicted)
                gradient[rows] = torch.autograd.grad(loss, z)[0]
            total += loss.detach()
            divergence += kl.detach()
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(divergence)
        return total, divergence

    @staticmethod
    def backward(ctx, upstream, _):
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None, None, None
