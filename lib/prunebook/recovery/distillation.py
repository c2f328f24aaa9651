"""Recovery after pruning by distillation: the pruned model learns the dense model's predictions.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation (NeurIPS 2024,
arXiv 2407.14679). Their advice is the default: forward KL of logits alone, at temperature 1; hidden
states where many blocks were cut.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..data.windows import check_tokens
from ..errors import UserError
from ..measure.quality import add_tensors, check_head
from ..models.anatomy import find_blocks
from .kd_loss import DIRECTIONS, LogitLoss
from .training import Training, train, training_all


def distill(
    model,
    teacher,
    tokens: torch.Tensor,
    training: Training | None = None,
    *,
    direction: str = "forward",
    temperature: float = 1.0,
    next_token: float = 0.0,
    hidden: Sequence[tuple[int, int]] = (),
    progress: str | None = None,
) -> list[float]:
    """Train all parameters of a student towards a teacher's logits, in place; the teacher stays as
    it is.

    The loss is `KL + next_token * NLL + alpha * D`. D is the cosine distance of the outputs of
    paired blocks, before any norm that follows, averaged over tokens and pairs; `alpha = KL / D`
    anew in each step, as a constant, so that both count alike. Where widths differ, one linear map
    from student to teacher, shared by all pairs, is trained along and dropped at the end.

    Args:
        tokens: int64 `[n, length]`.
        training: see `Training`; a `clip` of its gradients, as 1.0, is advisable.
        direction: `forward` for KL(teacher || student), `reverse` for KL(student || teacher), over
            all positions.
        temperature: tau; logits are divided by it and KL is multiplied by tau^2, so that gradients
            keep their size.
        next_token: weight of NLL, the next-token loss.
        hidden: pairs (student's block, teacher's block), from 0.
        progress: label of a progress bar, None for none.

    Returns:
        The loss of each step, in nats a token.

    Raises:
        UserError: bad settings or tokens, a model without a language-model head, a teacher that is
            the student or has another vocabulary, and what `train` raises.
    """
    training = training or Training()
    if direction not in DIRECTIONS:
        raise UserError(
            f"direction {direction!r} is unknown; use {' or '.join(map(repr, DIRECTIONS))}"
        )
    if not temperature > 0:
        raise UserError(f"temperature {temperature!r} is not allowed; use a number above 0, as 1.0")
    if not next_token >= 0:
        raise UserError(f"next_token {next_token!r} is not allowed; use a weight of 0 or more")
    for each in (model, teacher):
        check_head(each)
    words, known = (len(m.get_output_embeddings().weight) for m in (model, teacher))
    if teacher is model or words != known:
        wrong = (
            "is the student itself" if teacher is model else f"predicts {known} words, not {words}"
        )
        raise UserError(f"the teacher {wrong}; use the dense model that the student was cut from")
    for each in (model, teacher):
        check_tokens(each, tokens, "tokens")
    hidden = [tuple(pair) for pair in hidden]
    pairs = (
        set(itertools.product(*(range(len(find_blocks(m))) for m in (model, teacher))))
        if hidden
        else ()
    )
    if wrong := [pair for pair in hidden if pair not in pairs]:
        raise UserError(
            f"hidden pair {wrong[0]!r} names no blocks; use (student's, teacher's) up to "
            f"{max(pairs)}"
        )
    torch.manual_seed(training.seed)
    settings = (direction, temperature, next_token, hidden)
    mode = teacher.training
    lesson = _DistillationStep(model, teacher, *settings)
    digest = hashlib.sha256()
    add_tensors(digest, teacher.state_dict().values() if training.checkpoint else ())
    settings = repr((settings, digest.hexdigest()))
    try:
        with training_all(model, training):
            teacher.eval()
            return train(
                lesson,
                tokens,
                training,
                lambda step, batch: step(batch),
                progress,
                settings=settings,
            )
    finally:
        teacher.train(mode)


class _DistillationStep(nn.Module):
    """The student and, where hidden states of other widths are matched, a map of them; called on a
    batch, the loss."""

    def __init__(
        self, student, teacher, direction: str, temperature: float, next_token: float, hidden: list
    ):
        super().__init__()
        self.student = student  # a list registers no module
        self.config = student.config
        self._frozen = [teacher]
        self.get_input_embeddings = student.get_input_embeddings
        self._logits = (direction, temperature, next_token)
        self._hidden = hidden
        widths = student.config.hidden_size, teacher.config.hidden_size
        different = hidden and widths[0] != widths[1]
        self.map = (
            nn.Linear(*widths, bias=False, device=student.device) if different else nn.Identity()
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Loss of `batch [windows, length]`, in float32 or wider."""
        teacher = self._frozen[0]
        with torch.no_grad(), _outputs(teacher, [pair[1] for pair in self._hidden]) as wanted:
            reference = teacher(input_ids=batch.to(teacher.device), use_cache=False).logits.to(
                batch.device
            )
        with _outputs(self.student, [pair[0] for pair in self._hidden]) as states:
            logits = self.student(input_ids=batch, use_cache=False).logits
        # the last position predicts nothing that is known
        targets = F.pad(batch[:, 1:], (0, 1), value=-100)
        loss, divergence = LogitLoss.apply(
            *(x.flatten(0, 1) for x in (logits, reference, targets)), *self._logits
        )
        if not self._hidden:
            return loss
        pairs = (
            (self.map(states[i].float()).float(), wanted[j].to(batch.device).float())
            for i, j in self._hidden
        )
        distance = (
            1 - torch.stack([F.cosine_similarity(*pair, dim=-1).mean() for pair in pairs]).mean()
        )
        if distance <= torch.finfo(distance.dtype).eps:  # nothing but rounding is left to learn
            return loss
        return loss + (divergence / distance.detach()) * distance


@contextlib.contextmanager
def _outputs(model, indices: list[int]) -> Iterator[dict[int, torch.Tensor]]:
    """While open, the outputs `[windows, length, width]` of some blocks by index."""
    seen = {}
    blocks = find_blocks(model) if indices else []
    handles = []
    for index in set(indices):
        hook = lambda _, __, x, index=index: seen.update(
            {index: x[0] if isinstance(x, tuple) else x}
        )
        handles.append(blocks[index].module.register_forward_hook(hook))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
