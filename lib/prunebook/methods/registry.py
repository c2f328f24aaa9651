"""The methods by name: the class of each, and how one is made from a name and options.

A module is imported when its method is first named.
"""

import dataclasses
import importlib
import inspect
from typing import Any

from ..errors import UserError
from .base import Method

# name -> (module in this package, class). The table stays a literal: the catalogue and the rerun
# key of the notebooks read it without importing a method.
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
    "sparsegpt": ("sparsegpt.method", "SparseGPT"),
    "wanda": ("wanda", "Wanda"),
}


def make_method(method: Method | str, options: dict[str, Any]) -> Method:
    """The method object that a name and options, or an object, stand for.

    Args:
        method: a registered name, or a method object, which is returned as it is.
        options: options of a method that is given by name.

    Raises:
        UserError: an unknown name or option, options beside an object, or a class that does not
            keep the contract of `base.Method`.
    """
    if isinstance(method, str):
        return _by_name(method, options)
    # An object has its options already.
    if options:
        names = ", ".join(options)
        raise UserError(f"options {names} go into {type(method).__name__}(...), not beside it")
    if not isinstance(method, Method):
        raise UserError(
            f"method {method!r} is no method object; use a name or e.g. "
            "methods.Wanda(sparsity=0.5), or derive a class of your own from methods.base.Method"
        )
    check_class(type(method), type(method).__name__)
    return method


def _by_name(name: str, options: dict[str, Any]) -> Method:
    """A registered method with options.

    Args:
        name: registered name.
        options: values of some of the method's options.

    Raises:
        UserError: an unknown name or option, or a value that the method refuses.
    """
    if name not in REGISTRY:
        raise UserError(f"method {name!r} is unknown; use {', '.join(sorted(REGISTRY))}")
    # The fields of the dataclass are the options; their values are checked by the class itself.
    cls = load_class(name)
    allowed = [option.name for option in dataclasses.fields(cls)]
    if unknown := sorted(set(options) - set(allowed)):
        raise UserError(
            f"method {name!r} has no option {', '.join(unknown)}; it has {', '.join(allowed)}"
        )
    return cls(**options)


def name_of(method: Method) -> str:
    """The registered name of a method object, or the name of its class where it has none."""
    class_name = type(method).__name__
    for name, (_, registered) in REGISTRY.items():
        if registered == class_name:
            return name
    return class_name


def list_methods() -> list[dict[str, Any]]:
    """One entry for each method: what it is called, what it needs, and its options.

    An entry has `name`, `class`, `paper` (slug of its notebook; None where no paper stands behind
    the method), `text` (`calibration`, `data` or None), `makes_smaller`, `sparsity_of` (what its
    `sparsity` is a fraction of) and `options` with their defaults. Tags are in the papers' records.
    """
    entries = []
    for name in sorted(REGISTRY):
        # Everything but the name is declared by the class, see `base.Method`.
        cls = load_class(name)
        entries.append(
            {
                "name": name,
                "class": cls.__name__,
                "paper": cls.paper,
                "text": cls.text_argument(),
                "makes_smaller": cls.makes_smaller,
                "sparsity_of": cls.sparsity_of,
                "options": {option.name: option.default for option in dataclasses.fields(cls)},
            }
        )
    return entries


def load_class(name: str) -> type[Method]:
    """The class of a registered method.

    Raises:
        UserError: it does not keep the contract of `base.Method`.
    """
    module, class_name = REGISTRY[name]
    cls = getattr(importlib.import_module(f"{__package__}.{module}"), class_name, None)
    check_class(cls, f"{class_name} of methods.{module}")
    return cls


def check_class(cls: Any, shown: str) -> None:
    """Raise a `UserError` unless a class keeps the contract of `base.Method`, before it is used.

    Args:
        cls: the class.
        shown: what the message calls it.
    """
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UserError(f"{shown} is no subclass of Method; derive it from methods.base.Method")
    # Options are the fields of a dataclass; without the decorator, new ones would be lost.
    settings = getattr(cls, "__dataclass_params__", None)
    lost = "__dataclass_params__" not in vars(cls) and inspect.get_annotations(cls)
    if settings is None or not settings.frozen or lost:
        raise UserError(f"{shown} is no frozen dataclass; put @dataclass(frozen=True) above it")
    if missing := sorted(cls.__abstractmethods__):
        raise UserError(f"{shown} has no {', '.join(missing)}; define it as the base class says")
    if not hasattr(cls, "sparsity_of"):
        raise UserError(
            f"{shown} has no sparsity_of; write sparsity_of: ClassVar[str | None] = 'the blocks', "
            "or what else its sparsity is a fraction of, None for a method without that option"
        )
    # `prune` must take what the engine calls it with.
    named = ["progress", "device"]
    if cls.takes_allocation:
        named.insert(0, "targets")
    try:
        inspect.signature(cls.prune).bind("self", "model", "text", **dict.fromkeys(named))
    except (TypeError, ValueError) as error:
        arguments = ", ".join(f"{name}=None" for name in named)
        raise UserError(
            f"{shown} has a prune that cannot be called: {error}; write "
            f"prune(self, model, text, *, {arguments})"
        ) from error
