"""All cases, one file a kernel family.

Importing them builds nothing: operands are made when a case is measured.
"""

from itertools import chain

from ..case import Case
from . import (
    attention_decode,
    attention_mass,
    compaction,
    logits,
    matmul_2_4,
    matmul_unstructured,
    n_of_m,
    one_shot,
    select_layer,
    select_rows,
    sparsegpt,
    ternary,
)

_FAMILIES = (
    select_rows,
    n_of_m,
    matmul_2_4,
    sparsegpt,
    attention_mass,
    compaction,
    matmul_unstructured,
    select_layer,
    logits,
    ternary,
    one_shot,
    attention_decode,
)


def all_cases() -> list[Case]:
    """The cases of every family."""
    return list(chain.from_iterable(family.cases() for family in _FAMILIES))
