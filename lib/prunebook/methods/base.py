"""What a pruning method is: the contract that the engine, the comparison and the pages rely on."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from ..kernels.masking import apply_mask, masked_copy
from ..kernels.score import Score
from ..models.anatomy import weight_of
from ..models.loading import on_device
from ..passes.sequential import walk
from ..passes.statistics import InputNorm
from ..sparsity.allocation import uniform
from ..sparsity.patterns import NofM, Pattern, keep_mask, make_pattern
from ..sparsity.structured_masks import cut


class Method(abc.ABC):
    """A pruning method: a frozen dataclass whose fields are the user's options.

    What a method needs and what it can do is declared here, so that nothing has to be probed:

    paper: slug of the paper's notebook, None where no paper stands behind the method.
    needs_calibration: it reads text, and no weight is trained on it.
    needs_data: it trains weights on text.
    makes_smaller: it cuts structures out; else it sets weights to zero and shapes stay.
    takes_allocation: `prune` takes `targets`, a pattern for each linear.
    sparsity_of: what its `sparsity` is a fraction of; None for a method without that option.

    Raises:
        UserError: an impossible option, when the object is made.
    """

    # The defaults are those of most methods: one pass of calibration, and zeros in place.
    paper: ClassVar[str | None] = None
    needs_calibration: ClassVar[bool] = True
    needs_data: ClassVar[bool] = False
    makes_smaller: ClassVar[bool] = False
    takes_allocation: ClassVar[bool] = False
    sparsity_of: ClassVar[str | None]

    @property
    def target(self) -> Pattern | None:
        """The pattern of zeros that the method leaves, None where it leaves no such pattern."""
        return None

    def describe(self) -> str:
        """What a report calls the pattern."""
        return str(self.target)

    @classmethod
    def text_argument(cls) -> str | None:
        """The argument of `pb.prune` that takes the method's text: `calibration` or `data`."""
        if cls.needs_data:
            return "data"
        if cls.needs_calibration:
            return "calibration"
        return None

    @abc.abstractmethod
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor | None,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> Any:
        """Prune the model in place.

        Args:
            model: a causal language model in evaluation mode.
            text: int64 `[n, length]`, the calibration text or the data; None where none is needed.
            progress: label of a progress bar; None for no bar.
            device: where blocks compute, one at a time, or the whole model where the method needs
                it all; None for where the model is.

        Returns:
            What the method has learned on the way, for `Report.details`; None for nothing.

        Raises:
            UserError: text that does not fit, activations that are not finite, and what the
                method itself cannot do with this model.
        """


@dataclass(frozen=True)
class ScoreMethod(Method):
    """One-shot pruning by a score of weights and of the norms of their inputs, block by block.

    A method of this kind is its docstring, its options and `score`. The remaining weights keep
    their values.

    Args:
        sparsity: fraction of the weights removed, in [0, 1).
        pattern: n:m instead of a sparsity, e.g. '2:4'.
        scope: what a weight is compared with: its `row` or its `layer`.
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).
            Norms are summed in float32 in both.

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    scope: str = "row"
    precision: str = "exact"

    takes_allocation: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the weights of each comparison group"
    scopes: ClassVar[tuple[str, ...]] = ("row", "layer")

    def __post_init__(self):
        check_scope(self.target, self.paper or type(self).__name__, self.scopes)

    @property
    def target(self) -> Pattern:
        """The pattern that every linear gets where no allocation says otherwise."""
        return make_pattern(self.sparsity, self.pattern, self.scope)

    @abc.abstractmethod
    def score(self, weight: torch.Tensor, inputs: InputNorm) -> Score:
        """The score of each weight of a linear; a higher score means keep.

        Args:
            weight: `[out, in]`.
            inputs: norms of the inputs that reach the linear through the pruned blocks before it.
        """

    def mask(self, score: Score, pattern: Pattern) -> torch.Tensor:
        """What one linear keeps, bool `[out, in]`."""
        return keep_mask(score, pattern)

    def _keep(self, weight: torch.Tensor, inputs: InputNorm, pattern: Pattern) -> torch.Tensor:
        """Score and mask of one linear; a score of another shape is refused before it is used."""
        score = self.score(weight, inputs)
        if not isinstance(score, Score) or score.shape != weight.shape:
            shape = list(getattr(score, "shape", []))
            raise UserError(
                f"the score of {type(self).__name__} is {type(score).__name__} {shape}; return a "
                f"Score of the weight, {list(weight.shape)}"
            )
        return self.mask(score, pattern)

    @torch.no_grad()
    def prune_matrix(self, weight: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        """The pruned copy of one weight.

        Args:
            weight: `[out, in]`.
            activations: `[tokens, in]`, what the weight multiplies.
        """
        # The same three steps as in `prune`: norms of the inputs, the score, the mask.
        norms = InputNorm(weight.shape[1], weight.device)
        norms.update(activations)
        return masked_copy(weight, self._keep(weight, norms, self.target))

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        targets: Mapping[str, Pattern] | None = None,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Prune all linears of the decoder blocks in place, block by block.

        Args:
            model: as for `Method.prune`, like `text`, `progress` and `device`.
            targets: name of each linear -> its pattern; None for `target` everywhere.
        """
        # Without an allocation every linear gets the same pattern.
        targets = targets or uniform(model, self.target)
        norms_of = partial(InputNorm, precision=self.precision)
        for block in walk(model, text, precision=self.precision, progress=progress, device=device):
            # The block is still dense here: collect the norm of each input feature, ||X_j||_2.
            for name, inputs in block.collect(norms_of).items():
                weight = weight_of(block.linears[name])
                # The floor(in * s) lowest scores of each row go, ties lowest column first. With n:m
                # the lowest of each group go, with scope `layer` the lowest of the whole weight.
                apply_mask(weight, self._keep(weight, inputs, targets[name]))
            # When the loop comes back, `walk` has fed the pruned block's outputs to the next block.


class MaskTrainingMethod(Method):
    """A method that learns on text which heads, neurons or channels go, and then cuts them out."""

    needs_calibration: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    makes_smaller: ClassVar[bool] = True

    @abc.abstractmethod
    def learn(self, model: PreTrainedModel, data: torch.Tensor, progress: str | None = None) -> Any:
        """Train the masks, and whatever else the method trains, in place; nothing is cut yet.

        Args:
            model: a causal language model.
            data: int64 `[n, length]`.
            progress: label of a progress bar; None for no bar.

        Returns:
            What was learned; its `masks` are those that `sparsity.structured_masks.cut` takes.
        """

    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> Any:
        """Train and cut, in place.

        Args:
            model: as for `Method.prune`, like `progress`; the whole model computes on `device`.
            text: the data, as for `learn`.
            device: as for `Method.prune`.

        Raises:
            UserError: what `learn` raises.
        """
        # The whole model is trained at once, on one device.
        with on_device(model, device):
            result = self.learn(model, text, progress)
            # Masks are 0 or 1 by now and adapters are merged, so that the cut model computes what
            # the masked one did.
            cut(model, result.masks)
        return result


def check_scope(target: Pattern, name: str, scopes: tuple[str, ...]) -> None:
    """Raise a `UserError` unless a method can compare weights in the scope of its target.

    Args:
        target: pattern of the method; n:m has no scope.
        name: name of the method, for the message.
        scopes: what the method allows.
    """
    # With n:m the group is always m consecutive weights, so there is no scope to check.
    if isinstance(target, NofM) or target.scope in scopes:
        return
    # The message names the scope and what the method allows.
    allowed = " or ".join(map(repr, scopes))
    raise UserError(f"scope {target.scope!r} is not allowed for {name}; use {allowed}")
