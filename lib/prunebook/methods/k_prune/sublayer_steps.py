"""Walk a model from the bottom, with its teacher where that is needed, and cut one sublayer.

Park et al., K-prune (ICLR 2024, arXiv 2308.03449). The teacher is the model before anything was
cut. Each block has two sublayers, attention and MLP.
"""

import copy
from collections.abc import Iterator

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ...models.anatomy import Block, find_blocks, sublayers
from ...models.surgery import keep_kv_heads, keep_neurons, remove_heads, remove_neurons
from ...passes.sequential import BlockStep, walk


def blocks_to_cut(
    model: PreTrainedModel,
    text: torch.Tensor,
    *,
    with_teacher: bool,
    precision: str,
    progress: str | None,
) -> Iterator[tuple[BlockStep, BlockStep]] | Iterator[tuple[Block, None]]:
    """The blocks of a model from the bottom, each with the teacher's block of the same number.

    Only the refit needs the teacher, a copy of the model as it is now, and the states that enter
    the blocks of both. Without a teacher, blocks come without states, and None in its place.

    Args:
        model: the model, which is cut block by block while the walk goes on.
        text: int64 `[n, length]`.
        with_teacher: walk a teacher too.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).
        progress: label of a progress bar; None for no bar.
    """
    if not with_teacher:
        bar = tqdm(find_blocks(model), desc=progress, unit="block", disable=progress is None)
        return ((block, None) for block in bar)
    teacher = copy.deepcopy(model)
    student_steps = walk(model, text, precision=precision, progress=progress)
    teacher_steps = walk(teacher, text, precision=precision)
    return zip(student_steps, teacher_steps, strict=True)


def cut_sublayer(step: Block, kept: list[int], of_mlp: bool) -> None:
    """Leave some units of one sublayer of a block, in place; without any, it is emptied.

    Args:
        step: the block.
        kept: numbers of the units that stay, ascending.
        of_mlp: the sublayer is the MLP, not the attention.
    """
    parts = sublayers(step.module)
    # A sublayer without units is taken out of the sum; its output bias stays.
    if of_mlp and kept:
        keep_neurons(parts, kept)
    elif of_mlp:
        remove_neurons(parts)
    elif kept:
        keep_kv_heads(parts, kept)
    else:
        remove_heads(parts)
