"""The methods by name: which class implements which, and how one is made from a name and options.

A module is imported when its method is first named.
"""

import dataclasses
import importlib

from ..errors import UserError

# name -> (module here, class); also read without running it, by what needs the names alone
REGISTRY = {
    "besa": ("besa.method", "BESA"),
    "bitnet-b158": ("bitnet_b158", "BitNetB158"),
    "compresso": ("compresso.method", "Compresso"),
    "deeper-layers": ("deeper_layers.method", "DeeperLayers"),
    "dsnot": ("dsnot.method", "DSnoT"),
    "gradual-magnitude": ("sparse_scaling_laws.method", "GradualMagnitude"),
    "k-prune": ("k_prune.method", "KPrune"),
    "llm-pruner": ("llm_pruner.method", "LLMPruner"),
    "llm-surgeon": ("llm_surgeon.method", "LLMSurgeon"),
    "magnitude": ("essential_sparsity", "Magnitude"),
    "minitron": ("minitron.method", "Minitron"),
    "owl": ("owl.method", "OWL"),
    "remove-blocks": ("remove_blocks", "RemoveBlocks"),
    "ria": ("ria.method", "RIA"),
    "sheared-llama": ("sheared_llama.method", "ShearedLLaMA"),
    "shortened-llama": ("shortened_llama", "ShortenedLLaMA"),
    "sparsegpt": ("sparsegpt", "SparseGPT"),
    "wanda": ("wanda", "Wanda"),
}


def make_method(method, options: dict):
    """The method object that a name and options, or an object, stand for.

    Raises:
        UserError: an unknown name or option, or options beside an object.
    """
    if not isinstance(method, str):
        if options:
            raise UserError(
                f"options {', '.join(options)} go into {type(method).__name__}(...), not beside it"
            )
        if isinstance(method, type) or not hasattr(method, "needs_calibration"):
            raise UserError(
                f"method {method!r} is no method object; use a name or e.g. "
                "methods.Wanda(sparsity=0.5)"
            )
        return method
    if method not in REGISTRY:
        raise UserError(f"method {method!r} is unknown; use {', '.join(sorted(REGISTRY))}")
    cls = _load(method)
    allowed = [f.name for f in dataclasses.fields(cls)]
    if unknown := sorted(set(options) - set(allowed)):
        raise UserError(
            f"method {method!r} has no option {', '.join(unknown)}; it has {', '.join(allowed)}"
        )
    return cls(**options)


def name_of(method) -> str:
    """The registered name of a method object, or its class's name."""
    class_name = type(method).__name__
    return next(
        (name for name, (_, registered) in REGISTRY.items() if registered == class_name), class_name
    )


def list_methods() -> list[dict]:
    """One entry a method: name, class, paper (slug of its notebook), facets, whether it needs data,
    options."""
    entries = []
    for name in sorted(REGISTRY):
        cls = _load(name)
        entries.append(
            {
                "name": name,
                "class": cls.__name__,
                "paper": cls.paper,
                "facets": cls.facets,
                "needs_calibration": cls.needs_calibration,
                "options": {f.name: f.default for f in dataclasses.fields(cls)},
            }
        )
    return entries


def _load(name: str) -> type:
    module, class_name = REGISTRY[name]
    return getattr(importlib.import_module(f"{__package__}.{module}"), class_name)
