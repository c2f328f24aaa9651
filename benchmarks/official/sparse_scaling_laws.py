"""Sparse scaling laws, google-research/jaxpruner: the law, its fit, and masks of gradual pruning.

The law, its Huber loss and its fit are the cells of `projects/bigsparse/sparsity-scaling.ipynb`, on
the published runs of T5; the law alone on those of ViT, too, where the official fit is of losses
and ours only of their logarithms. Ramp, masks and training loop are those of the package. JAX,
chex, flax and optax are not installed: NumPy stands in for `jax.numpy` (with a stable sort, as JAX
has), functions without compilation for the few names of `jax` and `optax`.

The loop adds given updates to one matrix, without an optimiser. There masks are chosen from the
masked weights before an update, so that no removed weight returns; here from the weights after it,
so that some do: masks are compared from the same weights, and both loops as they are. The number
that stays is rounded there and the number that goes is rounded down here, which moves one weight at
most. The function for n:m leaves out an argument of the one that it calls, and is given it here.
"""

import csv
import dataclasses
import functools
import json
import types
import unittest.mock
from pathlib import Path

import numpy as np
import scipy.optimize
import torch

from prunebook.methods.sparse_scaling_laws.gradual_masks import GradualMasks, Ramp, removed_weights
from prunebook.methods.sparse_scaling_laws.law_fit import fit, huber
from prunebook.methods.sparse_scaling_laws.scaling_law import Law
from prunebook.models.anatomy import find_blocks
from prunebook.sparsity.patterns import NofM, Unstructured

from .common import equal_share, official_module, relative_difference, stand_in, tiny_llama

REPOSITORY = "https://github.com/google-research/jaxpruner"
COMMIT = "f133ee5"
_DELTA = 1e-3
# Non-zeros outside embeddings at scale 1, in millions.
_MILLIONS = {"t5": 24 * 12 * 768**2 / 1e6, "vit": 12 * 12 * 768**2 / 1e6}
_STEPS = 40
_RAMP = Ramp(0.25, 0.75, 20)
_SPARSITY = 0.75


def parity(folder: str) -> dict:
    """Laws, fits, ramps and masks of the official code beside ours.

    Args:
        folder: a checkout of the repository.
    """
    project = Path(folder) / "jaxpruner" / "projects" / "bigsparse"
    runs = _published_runs(project)
    official = _official_fit(project, runs["t5"])
    package = _package(folder)
    return {
        "law": _compare_laws(official, runs),
        "fit": _compare_fits(official, runs["t5"]),
        "ramp": _compare_ramp(package),
        "masks": _compare_masks(package),
        "n_of_m": _compare_n_of_m(package),
        "training": _compare_training(package),
    }


def _published_runs(project: Path) -> dict[str, np.ndarray]:
    """Data set -> S, N in millions, D and losses of its runs, `[4, runs]`.

    D is counted in 100,000 steps for T5 and in 10^9 images for ViT.
    """
    with (project / "t5-data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    t5 = {name: [float(row[name]) for row in rows] for name in rows[0] if name}
    columns = json.loads((project / "vit-data.json").read_text())
    vit = {name: [*values.values()] for name, values in columns.items()}
    return {
        "t5": _runs(t5, "steps", 1e5, _MILLIONS["t5"]),
        "vit": _runs(vit, "total_examples", 1e9, _MILLIONS["vit"]),
    }


def _runs(columns: dict[str, list], data: str, unit: float, millions: float) -> np.ndarray:
    """As the notebook makes them of a table whose column `data` has D, to be counted in `unit`."""
    sparsity = np.array(columns["sparsity"])
    non_zeros = millions * np.array(columns["scale"]) * (1 - sparsity)
    return np.stack([sparsity, non_zeros, np.array(columns[data]) / unit, columns["val-loss"]])


def _official_fit(project: Path, runs: np.ndarray) -> dict:
    """The names that the notebook's cell of the last fit leaves, after it has run."""
    path = project / "sparsity-scaling.ipynb"
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    source = [text for text in sources if "def law" in text][-1]
    names = {"np": np, "scipy": scipy, "x": runs[:3], "y": runs[3]}
    exec(compile(source, str(path), "exec"), names)
    return names


def _law(coefficients: np.ndarray) -> Law:
    """The law with the coefficients of the notebook, whose data term is `e D^-f`."""
    a, b, c, d, e, f, g = coefficients.tolist()
    return Law(a, b, c, d, e ** (1 / f), f, g)


def _difference(ours, theirs) -> float:
    """`relative_difference` of numbers or arrays."""
    pair = (torch.from_numpy(np.atleast_1d(values).astype(float)) for values in (ours, theirs))
    return relative_difference(*pair)


def _compare_laws(official: dict, runs: dict[str, np.ndarray]) -> dict:
    """Losses of the law and its Huber loss, for the fitted and for random coefficients.

    Args:
        official: names of the notebook.
        runs: of each data set, `[4, runs]`.
    """
    official_huber = official["loss"](official["law"], runs["t5"][:3], runs["t5"][3])
    random = np.random.default_rng(0).uniform(0.1, 1, (20, 7))
    found = {}
    for name, columns in runs.items():
        found[f"{name}_difference"] = max(
            _difference(_law(x).loss(*columns[:3]), official["law"](columns[:3], x))
            for x in (official["params"], *random)
        )
    found["huber_loss_difference"] = max(
        _difference(huber(_law(x), *runs["t5"], _DELTA), official_huber(x))
        for x in (official["params"], *random)
    )
    return found


def _compare_fits(official: dict, runs: np.ndarray) -> dict:
    """The best of the official 25 starts, and ours of 100."""
    ours = fit(*runs, delta=_DELTA)
    theirs = _law(official["params"])
    names = [field.name for field in dataclasses.fields(Law)]
    return {
        "official_loss": float(official["best"]["fun"]),
        "our_loss": ours.loss,
        "prediction_difference": _difference(ours.law.loss(*runs[:3]), theirs.loss(*runs[:3])),
        "coefficient_difference": {
            name: _difference(getattr(ours.law, name), getattr(theirs, name)) for name in names
        },
    }


def _package(folder: str) -> types.SimpleNamespace:
    """Modules of jaxpruner, with NumPy for JAX."""

    def jit(function=None, **options):
        # With options alone it is the decorator.
        return function or jit

    def cond(condition, yes, no, *operands):
        if condition:
            return yes(*operands)
        return no(*operands)

    members = {name: getattr(np, name) for name in dir(np) if not name.startswith("__")}
    members["argsort"] = functools.partial(np.argsort, kind="stable")
    stand_in(
        "jax",
        numpy=stand_in("jax.numpy", **members),
        jit=jit,
        lax=types.SimpleNamespace(cond=cond),
        tree_map=lambda function, *trees: function(*trees),
        random=types.SimpleNamespace(PRNGKey=int),
        Array=np.ndarray,
    )
    stand_in("chex", Array=np.ndarray, ArrayTree=np.ndarray)
    stand_in("flax")
    stand_in(
        "optax",
        safe_int32_increment=lambda count: count + 1,
        GradientTransformationExtraArgs=lambda init, update: types.SimpleNamespace(
            init=init, update=update
        ),
    )
    # The packages' own files import all of their modules.
    stand_in("jaxpruner", __path__=[f"{folder}/jaxpruner"])
    stand_in("jaxpruner.algorithms", __path__=[f"{folder}/jaxpruner/algorithms"])
    return types.SimpleNamespace(
        types=official_module(folder, "jaxpruner.sparsity_types"),
        schedules=official_module(folder, "jaxpruner.sparsity_schedules"),
        masks=official_module(folder, "jaxpruner.mask_calculator"),
        pruners=official_module(folder, "jaxpruner.algorithms.pruners"),
        iterative_nm=official_module(folder, "jaxpruner.projects.extensions.iterative_nm"),
    )


def _schedule(package):
    """The official schedule whose ramp is ours, with masks at every step of it."""
    first, last = (round(share * _STEPS) for share in (_RAMP.start, _RAMP.end))
    return package.schedules.PolynomialSchedule(1, first, last)


def _compare_ramp(package) -> dict:
    """Sparsities after each update of the weights, and when masks are chosen."""
    schedule = _schedule(package)
    counts = range(_STEPS)
    # The masks that the official code chooses at its count c act after c + 1 updates.
    ours = [_SPARSITY * _RAMP.share(count + 1, _STEPS) for count in counts]
    theirs = [schedule.get_sparsity_at_step(_SPARSITY, count) for count in counts]
    chosen = {count + 1 for count in counts if _RAMP.chooses_at(count + 1, _STEPS)}
    official = {count + 1 for count in counts if schedule.is_mask_update_iter(count)}
    return {
        "sparsity_difference": _difference(ours, theirs),
        "steps_with_masks": len(chosen),
        "official_steps_more": len(official - chosen),
        "our_steps_more": len(chosen - official),
    }


def _compare_masks(package) -> dict:
    """Masks of unstructured sparsities, without and with equal magnitudes."""
    generator = torch.Generator().manual_seed(1)
    equal = []
    equal_with_ties = []
    for shape in ((16, 24), (64, 64), (7, 5)):
        weight = torch.randn(shape, generator=generator)
        size = weight.numel()
        for removed in (1, size // 3, size // 2, size - 2):
            target = Unstructured(removed / size, "layer")
            for values, kept in ((weight, equal), ((2 * weight).round() / 2, equal_with_ties)):
                theirs = package.masks.topk_mask_calculator(values.abs().numpy(), target.sparsity)
                ours = ~removed_weights(values, target)
                kept.append(equal_share(ours, torch.from_numpy(theirs).bool()))
    return {
        "cases": len(equal),
        "least_bits_equal": min(equal),
        "least_bits_equal_with_equal_magnitudes": min(equal_with_ties),
    }


def _compare_n_of_m(package) -> dict:
    """Masks of 2:4 on the ramp, groups along the last dimension."""
    kind = package.types.NByM(2, 4)
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(2))
    scores = weight.abs().numpy()
    masks = package.iterative_nm.iterative_nm_topk_mask_calculator
    runs = True
    try:
        masks(scores, 0.25, kind)
    except TypeError:
        runs = False
    original = package.masks.topk_n_by_m_mask_calculator
    equal = []
    with unittest.mock.patch.object(
        package.masks, "topk_n_by_m_mask_calculator", lambda x, kind: original(x, 1.0, kind)
    ):
        for share in (0.125, 0.25, 0.5, 0.75, 1.0):
            theirs = masks(scores, 0.5 * share, kind)
            ours = ~removed_weights(weight, NofM(2, 4), share)
            equal.append(equal_share(ours, torch.from_numpy(theirs).bool()))
    return {"runs_as_it_is": runs, "least_bits_equal": min(equal)}


def _compare_training(package) -> dict:
    """A matrix that both loops prune while the same updates are added to it."""
    model = tiny_llama(num_hidden_layers=1)
    weight = next(iter(find_blocks(model)[0].linears.values())).weight
    updater = package.pruners.MagnitudePruning(
        scheduler=_schedule(package), sparsity_distribution_fn=lambda _: _SPARSITY
    )
    # What stands for the optimiser hands updates on.
    optimiser = types.SimpleNamespace(init=lambda _: None, update=lambda x, state, _: (x, state))
    loop = updater.wrap_optax(optimiser)
    official = weight.numpy().copy()
    state = loop.init(official)
    target = Unstructured(_SPARSITY, "layer")
    masks = GradualMasks(model, target, _RAMP, _STEPS, embeddings=False)
    masks.apply()
    generator = torch.Generator().manual_seed(3)
    returned = {"official": 0, "ours": 0}
    same_weights = []
    for count in range(_STEPS):
        update = 0.01 * torch.randn(weight.shape, generator=generator)
        before = torch.from_numpy(official)
        ours_before = weight.clone()
        updates, state = loop.update(update.numpy(), state, official)
        official = updater.post_gradient_update(official + updates, state)
        weight += update
        masks.apply()
        returned["official"] += int(((before == 0) & (torch.from_numpy(official) != 0)).sum())
        returned["ours"] += int(((ours_before == 0) & (weight != 0)).sum())
        if _RAMP.chooses_at(count + 1, _STEPS):
            ours = removed_weights(before, target, _RAMP.share(count + 1, _STEPS))
            same_weights.append(equal_share(~ours, torch.from_numpy(state.masks).bool()))
    return {
        "least_bits_equal_from_the_same_weights": min(same_weights),
        "most_bits_that_rounding_moves": round((1 - min(same_weights)) * weight.numel()),
        "weights_that_returned": returned,
        "bits_equal_at_the_end": equal_share(weight == 0, torch.from_numpy(official) == 0),
    }
