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


def blocks_alone(model: PreTrainedModel, progress: str | None) -> Iterator[tuple[Block, None]]:
    """The blocks of a model without the states that enter them, each with None for a teacher.

    Args:
        model: the model that is cut.
        progress: label of a progress bar; None for no bar.
    """
    for block in tqdm(find_blocks(model), desc=progress, unit="block", disable=progress is None):
        yield block, None


def beside_teacher(
    model: PreTrainedModel, text: torch.Tensor, precision: str, progress: str | None
) -> Iterator[tuple[BlockStep, BlockStep]]:
    """The blocks of a model, each with the block of the same number of its teacher.

    Both hold the states that enter them. The teacher is a copy of the model as it is now.

    Args:
        model: the model that is cut, block by block, while the walk goes on.
        text: int64 `[n, length]`.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).
        progress: label of a progress bar; None for no bar.
    """
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
    if of_mlp and kept:
        keep_neurons(parts, kept)
    elif of_mlp:
        remove_neurons(parts)
    elif kept:
        keep_kv_heads(parts, kept)
    else:
        remove_heads(parts)
