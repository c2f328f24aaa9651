"""SparseGPT's update of a block of columns and of a layer, beside loops over columns.

The loops are written as algorithm 1 says; the truth is such a loop in float64.
"""

from functools import partial

import torch

from ...criteria.obs import inverse_factor
from ...kernels.sparsegpt_block import sparsegpt_block, sparsegpt_block_reference
from ...methods.sparsegpt.column_sweep import sparsegpt_update
from ...sparsity.patterns import Unstructured, count_removed
from .. import work
from ..case import Case, Operands, Provider, relative_error
from ..record import CONTROL
from .weights import DOWN, SQUARE, UP, weight

KERNEL = "sparsegpt"
_BLOCK = 128
_DAMPING = 0.01
_SPARSITY = 0.5
_N = 2
_M = 4
_TOKENS_PER_INPUT = 4  # calibration tokens for each input
# Allowed relative error of a block's weights. 2:4 chooses its mask as it goes, and a near tie that
# falls the other way weighs more.
_SAME_MASK = 1e-4
_OWN_MASK = 1e-2
_LAYER = 1e-3  # allowed relative difference of the layer's loss, and share of its mask that differs
_LOOP = "as the official code has it"


def cases() -> list[Case]:
    """The cases of this family."""
    blocks = [block(4096, "0.5", rank=0), block(4096, "2:4", rank=1), block(11008, "0.5", rank=1)]
    layers = [layer(*SQUARE, rank=0), layer(*UP, rank=2), layer(*DOWN, rank=2)]
    return [*blocks, *layers, block(4096, "0.5", rank=3, compiled=True)]


def block(
    rows: int, pattern: str, rank: int, compiled: bool = False, columns: int = _BLOCK
) -> Case:
    """One block of columns.

    Args:
        rows: rows of the weight.
        pattern: '0.5' or '2:4'.
        rank: order of importance.
        compiled: time `torch.compile` of the loop, too, which takes a minute or more to compile.
        columns: columns of the block.
    """
    n_of_m = None
    allowed = _SAME_MASK
    if pattern == "2:4":
        n_of_m = (_N, _M)
        allowed = _OWN_MASK
    settings = {"part": "block", "pattern": pattern}
    seconds = 10
    providers = [
        Provider(
            "prunebook", lambda o: (o["W"], sparsegpt_block(o["W"], o["keep"], o["U"], n_of_m))
        ),
        Provider("loop over columns", partial(_block_loop, n_of_m), captures=False, note=_LOOP),
        Provider(
            "loop over columns, in strips",
            partial(_strips, n_of_m),
            captures=False,
            note="our reference in torch: fewer launches, a product every 32 columns",
        ),
    ]
    if compiled:
        settings["beside"] = "torch.compile"
        seconds = 180
        loop = torch.compile(partial(_block_loop, n_of_m), dynamic=False)
        providers.append(
            Provider("loop over columns, compiled", loop, note="the first call compiles")
        )
    return Case(
        KERNEL,
        {"rows": rows, "columns": columns},
        work.sparsegpt_block(rows, columns),
        partial(_block_operands, rows, columns),
        partial(_block_truth, n_of_m),
        _block_error,
        providers,
        settings=settings,
        dtype="float32",
        allowed=allowed,
        written=("W", "keep"),
        rank=rank,
        seconds=seconds,
    )


def layer(rows: int, columns: int, rank: int) -> Case:
    """A whole layer, with the computation of its factor."""
    providers = [
        Provider("prunebook", _ours, captures=False),
        Provider(
            "loop over columns", _layer_loop, captures=False, note=f"{_LOOP}, factor included"
        ),
        Provider("the factor alone", _factor, captures=False, role=CONTROL, note="prunes nothing"),
    ]
    seconds = 30
    if columns > 4096:
        seconds = 75
    return Case(
        KERNEL,
        {"rows": rows, "columns": columns},
        work.sparsegpt_update(rows, columns),
        partial(_layer_operands, rows, columns),
        _layer_truth,
        _layer_error,
        providers,
        allowed=_LAYER,
        dtype="float32",
        settings={"part": "layer", "sparsity": _SPARSITY},
        rank=rank,
        seconds=seconds,
    )


def _hessian(generator: torch.Generator, columns: int) -> torch.Tensor:
    """X^T X of inputs that differ in size, float32 `[columns, columns]`."""
    options = {"generator": generator, "device": generator.device}
    x = torch.randn(_TOKENS_PER_INPUT * columns, columns, **options) * (
        torch.rand(columns, **options) + 0.1
    )
    return x.T @ x


def _block_operands(rows: int, columns: int, generator: torch.Generator) -> Operands:
    """W `[columns, rows]` as the kernel takes it, a mask of half of the block, and the factor.

    2:4 ignores the mask.
    """
    W = weight(generator, columns, rows).float()
    U = inverse_factor(_hessian(generator, columns), _DAMPING)
    scores = (W / U.diagonal()[:, None]).abs()
    keep = scores > scores.flatten().kthvalue(count_removed(W.numel(), _SPARSITY)).values
    return {"W": W, "keep": keep, "U": U}


def _block_truth(n_of_m: tuple[int, int] | None, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    return _block_loop(n_of_m, o | {"W": o["W"].double(), "U": o["U"].double()})


def _block_error(
    result: tuple[torch.Tensor, torch.Tensor], truth: tuple[torch.Tensor, torch.Tensor]
) -> float:
    """The larger relative error of the pruned weights and of the errors."""
    return max(map(relative_error, result, truth))


def _block_loop(n_of_m: tuple[int, int] | None, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    Q, E = _loop(o["W"].T.clone(), ~o["keep"].T, o["U"], n_of_m)
    return Q.T, E.T


def _strips(n_of_m: tuple[int, int] | None, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    return o["W"], sparsegpt_block_reference(o["W"], o["keep"], o["U"], n_of_m)


def _loop(
    W: torch.Tensor,
    removed: torch.Tensor,
    U: torch.Tensor,
    n_of_m: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loop of algorithm 1 over the columns of a block W `[rows, columns]`.

    Returns:
        The pruned weights Q and the errors E, both `[rows, columns]`.
    """
    Q = torch.zeros_like(W)
    E = torch.zeros_like(W)
    removed = removed.clone()
    for j in range(W.shape[1]):
        if n_of_m and j % n_of_m[1] == 0:
            n, m = n_of_m
            scores = W[:, j : j + m] ** 2 / U.diagonal()[j : j + m] ** 2
            lowest = torch.topk(scores, m - n, dim=1, largest=False).indices
            group = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, lowest, True)
            removed[:, j : j + m] = group
        w = W[:, j]
        q = w.masked_fill(removed[:, j], 0)
        Q[:, j] = q
        e = (w - q) / U[j, j]
        W[:, j:] -= e[:, None] @ U[j, j:][None]
        E[:, j] = e
    return Q, E


def _layer_operands(rows: int, columns: int, generator: torch.Generator) -> Operands:
    return {
        "weight": weight(generator, rows, columns).float(),
        "hessian": _hessian(generator, columns),
    }


def _ours(o: Operands) -> torch.Tensor:
    return sparsegpt_update(o["weight"], o["hessian"], Unstructured(_SPARSITY), _DAMPING, _BLOCK)[0]


def _layer_loop(o: Operands) -> torch.Tensor:
    """The whole of algorithm 1, as the official code has it."""
    W = o["weight"].clone()
    H = o["hessian"].clone()
    # Three steps lead to the factor.
    H.diagonal().add_(_DAMPING * H.diagonal().mean())
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    for i1 in range(0, W.shape[1], _BLOCK):
        i2 = min(i1 + _BLOCK, W.shape[1])
        # A sort gives the block's threshold.
        scores = W[:, i1:i2] ** 2 / U.diagonal()[i1:i2] ** 2
        threshold = scores.flatten().sort().values[count_removed(scores.numel(), _SPARSITY) - 1]
        # After the loop over the block's columns a product updates the rest.
        W[:, i1:i2], E = _loop(W[:, i1:i2].clone(), scores <= threshold, U[i1:i2, i1:i2])
        W[:, i2:] -= E @ U[i1:i2, i2:]
    return W


def _factor(o: Operands) -> torch.Tensor:
    return inverse_factor(o["hessian"], _DAMPING)


def _layer_truth(o: Operands) -> dict[str, torch.Tensor]:
    exact = {name: x.double() for name, x in o.items()}
    pruned = _layer_loop(exact)
    return {**exact, "pruned": pruned, "loss": _loss(pruned, exact)}


def _loss(pruned: torch.Tensor, exact: Operands) -> torch.Tensor:
    """tr(dW H dW^T), the squared error of the layer's outputs."""
    change = pruned.double() - exact["weight"]
    return ((change @ exact["hessian"]) * change).sum()


def _layer_error(result: torch.Tensor, truth: dict[str, torch.Tensor]) -> float:
    loss = abs(_loss(result, truth) / truth["loss"] - 1).item()
    masks = ((result == 0) != (truth["pruned"] == 0)).double().mean().item()
    return max(loss, masks)
