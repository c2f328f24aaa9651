"""The loss of distillation on logits, with its gradient, a few tokens at a time."""

import torch
import torch.nn.functional as F

DIRECTIONS = ("forward", "reverse")
_ROWS = 32  # tokens at a time: 6 MB of float32 at a vocabulary of 49,152


class LogitLoss(torch.autograd.Function):
    """`(KL + next_token * NLL, KL)` of logits `[T, V]` beside a teacher's and target words `[T]`,
    -100 for none.

    KL is averaged over all tokens, NLL over those with a target. Computed with its gradient a few
    tokens at a time, in float32 or wider; the gradient takes the place of the teacher's logits, so
    that no third `[T, V]` is held.
    """

    @staticmethod
    def forward(ctx, student, teacher, targets, direction, temperature, next_token):
        gradient = teacher if teacher.dtype is student.dtype else torch.empty_like(student)
        wide = torch.promote_types(student.dtype, torch.float32)
        total, divergence = (torch.zeros((), dtype=wide, device=student.device) for _ in range(2))
        predicted = max(1, int((targets >= 0).sum()))
        for first in range(0, len(student), _ROWS):
            rows = slice(first, first + _ROWS)
            with torch.enable_grad():
                z = student[rows].detach().to(wide).requires_grad_()
                log_q = (z / temperature).log_softmax(1)
                log_p = (teacher[rows].to(wide) / temperature).log_softmax(1)
                one, other = (log_p, log_q) if direction == "forward" else (log_q, log_p)
                kl = torch.linalg.vecdot(one.exp(), one - other).sum() * (
                    temperature**2 / len(student)
                )
                loss = kl
                if next_token:
                    loss = kl + F.cross_entropy(z, targets[rows], reduction="sum") * (
                        next_token / predicted
                    )
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
