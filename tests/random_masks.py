"""Random masks of a model, for the tests that apply them and those that cut them out."""

import torch

from prunebook.sparsity.structured_masks import mask_shapes

AXES = ("blocks", "heads", "neurons", "hidden")


def masks_of(model, counts, seed=0):
    """Random masks with so many ones in each row."""
    drawn = torch.Generator().manual_seed(seed)
    shapes = mask_shapes(model)
    return {
        axis: torch.rand(shapes[axis], generator=drawn).argsort(-1) < count
        for axis, count in counts.items()
    }


SHAPE = {"blocks": 2, "heads": 1, "neurons": 30, "hidden": 24}
