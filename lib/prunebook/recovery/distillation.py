"""Recovery after pruning by distillation: the pruned model learns the dense model's predictions.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation (NeurIPS 2024,
arXiv 2407.14679). Their advice is the default: forward KL of logits alone, at temperature 1; hidden
states where many blocks were cut.
"""

import contextlib
import hashlib
import itertools
import operator
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from ..data.token_check import check_tokens
from ..errors import UserError
from ..measure.baseline import add_tensors, check_head
from ..models.anatomy import find_blocks
from ..passes.hooks import forward_hooks
from .kd_loss import DIRECTIONS, LogitLoss
from .training import Training, train, training_all


def distill(
    model: PreTrainedModel,
    teacher: PreTrainedModel,
    tokens: torch.Tensor,
    training: Training | None = None,
    *,
    direction: str = "forward",
    temperature: float = 1.0,
    next_token: float = 0.0,
    hidden: Sequence[tuple[int, int]] = (),
    progress: str | None = None,
) -> list[float]:
    """Train all parameters of a student towards a teacher's logits, in place.

    The loss is `KL + next_token * NLL + alpha * D`. D is the cosine distance of the outputs of
    paired blocks, before any norm that follows, averaged over tokens and pairs. `alpha = KL / D` is
    set anew in each step and is a constant to the gradient, so that both terms count alike. Where
    widths differ, one linear map from student to teacher, shared by all pairs, is trained along and
    dropped at the end.

    Args:
        model: the student, a causal language model.
        teacher: the dense model; it stays as it is.
        tokens: int64 `[n, length]`, in the order of training.
        training: see `Training`, None for its defaults; a `clip`, e.g. 1.0, is advisable.
        direction: `forward` for KL(teacher || student), `reverse` for KL(student || teacher), over
            all positions.
        temperature: tau; logits are divided by it and KL is multiplied by tau^2, so that gradients
            keep their size.
        next_token: weight of NLL, the next-token loss.
        hidden: pairs (student's block, teacher's block), counted from 0.
        progress: label of a progress bar, None for none.

    Returns:
        The loss of each step, in nats a token.

    Raises:
        UserError: bad settings or tokens, a model without a language-model head, a teacher that is
            the student or has another vocabulary, and what `train` raises.
    """
    training = training or Training()
    hidden = [tuple(pair) for pair in hidden]
    _check_loss(direction, temperature, next_token)
    _check_models(model, teacher, tokens, hidden)
    torch.manual_seed(training.seed)
    settings = (direction, temperature, next_token, hidden)
    step = DistillationStep(model, teacher, *settings)
    of_run = repr((settings, _teacher_digest(teacher, training)))
    with training_all(model, training), _evaluating(teacher):
        return train(step, tokens, training, operator.call, progress, settings=of_run)


def _check_loss(direction: str, temperature: float, next_token: float) -> None:
    """Raise a `UserError` for settings that make no loss."""
    if direction not in DIRECTIONS:
        raise UserError(
            f"direction {direction!r} is unknown; use {' or '.join(map(repr, DIRECTIONS))}"
        )
    if not temperature > 0:
        raise UserError(
            f"temperature {temperature!r} is not allowed; use a number above 0, e.g. 1.0"
        )
    if not next_token >= 0:
        raise UserError(f"next_token {next_token!r} is not allowed; use a weight of 0 or more")


def _check_models(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokens: torch.Tensor,
    hidden: Sequence[tuple],
) -> None:
    """Raise a `UserError` unless one model can learn from the other on these tokens."""
    models = (student, teacher)
    for model in models:
        check_head(model)
    words, known = (len(model.get_output_embeddings().weight) for model in models)
    problem = None
    if teacher is student:
        problem = "is the student itself"
    elif words != known:
        problem = f"predicts {known} words, not {words}"
    if problem:
        raise UserError(f"the teacher {problem}; use the dense model that the student was cut from")
    for model in models:
        check_tokens(model, tokens, "tokens")
    _check_pairs(hidden, student, teacher)


def _check_pairs(
    hidden: Sequence[tuple], student: PreTrainedModel, teacher: PreTrainedModel
) -> None:
    """Raise a `UserError` unless each pair of `hidden` names a block of either model."""
    if not hidden:
        return
    allowed = set(
        itertools.product(range(len(find_blocks(student))), range(len(find_blocks(teacher))))
    )
    for pair in hidden:
        if pair not in allowed:
            raise UserError(
                f"hidden pair {pair!r} names no blocks; use (student's, teacher's) up to "
                f"{max(allowed)}"
            )


def _teacher_digest(teacher: PreTrainedModel, training: Training) -> str:
    """A hash of the teacher's weights, which is part of what a checkpoint knows its run by.

    It takes time, so it is that of no weights where no checkpoint is asked for.
    """
    digest = hashlib.sha256()
    if training.checkpoint:
        add_tensors(digest, teacher.state_dict().values())
    return digest.hexdigest()


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """While open, the model is in evaluation mode; afterwards in its own."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)


class DistillationStep(nn.Module):
    """The student with the map of its hidden states; called on a batch, it returns the loss.

    Args:
        student: the model that is trained.
        teacher: the dense model.
        direction: as for `distill`.
        temperature: as for `distill`.
        next_token: as for `distill`.
        hidden: as for `distill`; the map is the identity where widths are equal or no pair is.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        direction: str,
        temperature: float,
        next_token: float,
        hidden: Sequence[tuple[int, int]],
    ):
        super().__init__()
        self.student = student
        self.config = student.config
        self._frozen = [teacher]  # in a list, a module is not registered
        self.get_input_embeddings = student.get_input_embeddings
        self._logits = (direction, temperature, next_token)
        self._hidden = hidden
        width = student.config.hidden_size
        teacher_width = teacher.config.hidden_size
        self.map = nn.Identity()
        if hidden and width != teacher_width:
            self.map = nn.Linear(width, teacher_width, bias=False, device=student.device)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Loss of `batch [windows, length]`, in float32 or wider."""
        teacher = self._frozen[0]
        with torch.no_grad(), _outputs(teacher, [j for _, j in self._hidden]) as teacher_states:
            reference = teacher(input_ids=batch.to(teacher.device), use_cache=False).logits
        with _outputs(self.student, [i for i, _ in self._hidden]) as states:
            logits = self.student(input_ids=batch, use_cache=False).logits
        # The last position has no target.
        targets = F.pad(batch[:, 1:], (0, 1), value=-100)
        loss, divergence = LogitLoss.apply(
            logits.flatten(0, 1),
            reference.to(batch.device).flatten(0, 1),
            targets.flatten(0, 1),
            *self._logits,
        )
        if not self._hidden:
            return loss
        similarities = [
            self._similarity(states[i], teacher_states[j].to(batch.device)) for i, j in self._hidden
        ]
        distance = 1 - torch.stack(similarities).mean()
        if distance <= torch.finfo(distance.dtype).eps:  # only rounding is left to learn
            return loss
        # alpha = KL / D is a constant to the gradient.
        return loss + (divergence / distance.detach()) * distance

    def _similarity(self, states: torch.Tensor, teacher_states: torch.Tensor) -> torch.Tensor:
        """Mean cosine similarity over tokens, of `[windows, length, width]` each."""
        mapped = self.map(states.float()).float()
        return F.cosine_similarity(mapped, teacher_states.float(), dim=-1).mean()


@contextlib.contextmanager
def _outputs(model: PreTrainedModel, indices: list[int]) -> Iterator[dict[int, torch.Tensor]]:
    """While open, the outputs `[windows, length, width]` of some blocks, by index."""
    outputs = {}
    blocks = find_blocks(model) if indices else []

    def record(index: int):
        def hook(_, __, output):
            outputs[index] = output[0] if isinstance(output, tuple) else output

        return hook

    with forward_hooks((blocks[index].module, record(index)) for index in set(indices)):
        yield outputs
