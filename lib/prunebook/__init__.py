"""The Pruning Book's library: criteria, methods and measurements shared by every paper's notebook.

Public names load on first use, so that reading the catalogue or building pages needs no torch.
"""

import importlib
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

__version__ = "0.1.0"
_PACKAGE = __name__

# name -> module that defines it; also read (not run) to find the code that a notebook can reach
EXPORTS = {
    "load_model": "models.loading",
    "save_model": "models.loading",
    "calibration_tokens": "data.windows",
    "evaluation_tokens": "data.windows",
    "training_tokens": "data.windows",
    "perplexity": "measure.quality",
    "measure_quality": "measure.quality",
    "dense_baseline": "measure.baseline",
    "footprint": "measure.footprint",
    "verify": "measure.zeros",
    "prune": "methods.prune",
    "compress": "models.packed",
    "list_methods": "methods.registry",
    "compare": "experiments.compare",
    "sweep": "experiments.compare",
    "check": "notebook.claims",
    "check_rest": "notebook.claims",
    "claim": "notebook.claims",
    "not_testable": "notebook.claims",
    "bound": "notebook.bounds",
    "gap": "notebook.gaps",
    "results": "notebook.results",
    "use_protocol": "notebook.results",
    "show_errata": "notebook.errata",
    "show_source": "notebook.source",
    "UserError": "errors",
}
# name of a module before the rooms -> the modules that hold its names now; also read without
# running it
MOVED = {
    "allocation": (
        "sparsity.allocation",
        "methods.owl.outliers",
        "methods.owl.rates",
        "methods.besa.learned_sparsity",
        "methods.besa.candidates",
        "methods.besa.block_training",
    ),
    "bitlinear": ("models.ternary_linears", "models.ternary"),
    "blocks": (
        "passes.sequential",
        "passes.capture",
        "passes.statistics",
        "models.anatomy",
        "measure.zeros",
    ),
    "claims": ("notebook.claims", "notebook.gaps", "notebook.results", "notebook.quick"),
    "compression": ("models.packed", "models.packed_linears"),
    "contention": ("notebook.contention",),
    "corpora": ("data.corpora", "data.windows", "data.tasks", "data.token_check"),
    "costs": ("measure.footprint",),
    "distillation": ("recovery.distillation",),
    "divergence": ("recovery.kd_loss",),
    "domains": ("methods.sheared_llama.domains", "methods.sheared_llama.data_mixture"),
    "evaluate": ("measure.quality", "measure.baseline", "measure.tasks"),
    "finetune": ("recovery.training", "recovery.finetune"),
    "folding": ("methods.ria.fold_permutation",),
    "gradients": ("passes.backward",),
    "hard_concrete": ("sparsity.hard_concrete",),
    "instructions": ("methods.compresso.instruction_data", "methods.compresso.response_loss"),
    "lagrangian": ("sparsity.lagrangian",),
    "learned_masks": ("recovery.learned_masks",),
    "learned_rates": (
        "methods.besa.learned_sparsity",
        "methods.besa.candidates",
        "methods.besa.block_training",
    ),
    "memory": ("measure.memory",),
    "patterns": ("sparsity.patterns", "measure.zeros", "methods.llm_surgeon.cheapest"),
    "permutation": ("methods.ria.permutation",),
    "precision": ("passes.precision",),
    "pretraining": ("models.tiny", "data.windows"),
    "reconstruction": ("methods.k_prune.refit", "methods.k_prune.refit_examples"),
    "render": ("notebook.tables", "notebook.display"),
    "scaling": (
        "methods.sparse_scaling_laws.scaling_law",
        "methods.sparse_scaling_laws.law_fit",
        "methods.sparse_scaling_laws.optimal_sparsity",
    ),
    "show": ("notebook.source",),
    "size_budget": ("methods.compresso.size_budget",),
    "speedup": ("notebook.speedup",),
    "structured_masks": ("sparsity.structured_masks", "passes.masked"),
    "structures": ("models.sizes", "models.channels", "models.surgery"),
    "sublayers": ("models.anatomy", "models.surgery"),
    "swapping": ("methods.dsnot.mask_swaps",),
    "widths": ("models.surgery", "models.config"),
    # Modules that were in a room already, under other names.
    "caches.budget": ("caches.policy",),
    "caches.comparison": ("experiments.caches",),
    "criteria.activations": ("methods.minitron.activations", "methods.minitron.aggregation"),
    "criteria.angular": ("methods.deeper_layers.angular",),
    "criteria.dsnot": ("methods.dsnot.moments",),
    "criteria.fisher": ("methods.llm_surgeon.fisher", "methods.llm_surgeon.removal_costs"),
    "criteria.hessian": ("criteria.obs", "passes.statistics"),
    "criteria.knowledge": ("methods.k_prune.knowledge", "methods.k_prune.predictions"),
    "criteria.taylor": ("methods.llm_pruner.taylor", "methods.llm_pruner.group_scores"),
    "criteria.whole_blocks": ("criteria.block_scores",),
    "methods.comparison": ("experiments.compare", "experiments.trials", "experiments.protocol"),
    "methods.engine": ("methods.prune", "methods.registry"),
    "methods.gradual_magnitude": ("methods.sparse_scaling_laws.method",),
    "methods.magnitude": ("methods.essential_sparsity",),
    "methods.options": ("validation",),
    "methods.trial_cache": ("experiments.trial_cache",),
    "kernels.attention_decode": ("kernels.attention.decode",),
    "kernels.attention_mass": ("kernels.attention.mass",),
    "kernels.bitmap": ("kernels.formats.bitmap",),
    "kernels.compaction": ("kernels.attention.compaction",),
    "kernels.ell": ("kernels.formats.ell",),
    "kernels.matmul_2_4": ("kernels.matmul.two_four",),
    "kernels.matmul_unstructured": ("kernels.matmul.unstructured",),
    "kernels.n_of_m": ("kernels.topk.n_of_m",),
    "kernels.noise": ("kernels.attention.noise",),
    "kernels.packed": ("kernels.formats.n_of_m",),
    "kernels.scores": ("kernels.score",),
    "kernels.select": ("kernels.topk.rows",),
    "kernels.selection": ("kernels.topk.rule",),
    "kernels.ternary": ("kernels.matmul.ternary",),
    "kernels.tiled_csl": (
        "methods.flash_llm.tiled_csl",
        "methods.flash_llm.tile",
        "methods.flash_llm.bank_order",
    ),
}
_ROOMS = (
    "bench",
    "caches",
    "catalog",
    "cli",
    "criteria",
    "data",
    "experiments",
    "kernels",
    "measure",
    "methods",
    "models",
    "notebook",
    "passes",
    "recovery",
    "runs",
    "site",
    "sparsity",
)

__all__ = [*EXPORTS, *_ROOMS]


class _MovedModule(types.ModuleType):
    """A module of before the rooms: its names, looked up where they are now.

    It stands in `sys.modules`, so that `from prunebook.patterns import keep_mask` finds it, too.
    """

    def __init__(self, name: str, places: tuple[str, ...]):
        super().__init__(f"{_PACKAGE}.{name}")
        self._places = places

    def __getattr__(self, name: str) -> Any:
        # What looks through `sys.modules` for `__file__` and the like must not import anything.
        places = () if name.startswith("__") else self._places
        for place in places:
            module = importlib.import_module(f"{_PACKAGE}.{place}")
            if name in vars(module):
                return vars(module)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        names = set()
        for place in self._places:
            names |= set(vars(importlib.import_module(f"{_PACKAGE}.{place}")))
        return sorted(names)


def load_export(package: str, exports: Mapping[str, str], name: str) -> Any:
    """What a package's `__getattr__` returns for `name`.

    Args:
        package: the package's own name, for the error.
        exports: name -> the module of the library that defines it.
        name: the attribute that is asked for.

    Raises:
        AttributeError: the package does not export it.
    """
    if name not in exports:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{exports[name]}"), name)


def list_names(package: str, names: Iterable[str]) -> list[str]:
    """What a package's `__dir__` returns: what it holds, and what loads on first use.

    Args:
        package: the package's own name.
        names: its public names, loaded or not.
    """
    return sorted({*vars(sys.modules[package]), *names})


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in MOVED:
        return sys.modules[f"{__name__}.{name}"]
    value = load_export(__name__, EXPORTS, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)


for _name, _places in MOVED.items():
    sys.modules.setdefault(f"{__name__}.{_name}", _MovedModule(_name, _places))
