"""The facets by which papers are tagged, the values of each, and the pages that explain them."""

import re

from ..errors import UserError

# facet -> its values, in the order of the concept pages
VOCABULARY = {
    "type": (
        "Unstructured",
        "Semi-structured",
        "Structured",
        "Structured-Depth",
        "Head/Neuron",
        "Other",
    ),
    "criteria": (
        "Magnitude",
        "Wanda",
        "RIA",
        "Hessian",
        "Perplexity",
        "Angular Distance",
        "Activation",
        "KL",
        "Trainable",
        "Other",
    ),
    "budget": ("Sparsity", "Layer Numbers", "Parameter", "FLOPs"),
    "data": ("Data free", "Calibration", "Small", "Medium", "Large", "Other"),
    "retrain": ("Without", "Efficient", "Extensive", "Scratch", "Other"),
    "weight": ("Frozen", "Update", "Other"),
}

CONCEPT_PAGES = {
    "type": "concepts/types.md",
    "criteria": "concepts/criteria.md",
    "budget": "concepts/budget.md",
    "data": "concepts/data.md",
    "retrain": "concepts/finetune.md",
    "weight": "concepts/weight_update.md",
}


def concept_anchor(facet: str, value: str) -> str:
    """The label of a tag's heading on its concept page, e.g. `criteria-angular-distance`.

    Args:
        facet: a key of `VOCABULARY`.
        value: one of its values.

    Raises:
        UserError: unknown facet or value.
    """
    if facet not in VOCABULARY:
        raise UserError(f"unknown facet {facet!r}; allowed: {', '.join(VOCABULARY)}")
    if value not in VOCABULARY[facet]:
        raise UserError(f"unknown {facet} value {value!r}; allowed: {', '.join(VOCABULARY[facet])}")
    return f"{facet}-{re.sub('[^a-z0-9]+', '-', value.lower()).strip('-')}"
