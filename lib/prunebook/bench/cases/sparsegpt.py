"""SparseGPT's update of a block of columns and of a whole layer, beside loops over columns written
as algorithm 1 says.

The truth is such a loop in float64.
"""

from functools import partial

import torch

from ...criteria.obs import inverse_factor
from ...kernels.sparsegpt_block import sparsegpt_block, sparsegpt_block_reference
from ...methods.sparsegpt import sparsegpt_update
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
_TEXTS = 4  # calibration tokens for each input
# Relative error of a block's weights; 2:4 chooses as it goes, and a near tie that falls the other
# way weighs more.
_SAME_MASK = 1e-4
_OWN_MASK = 1e-2
_LAYER = 1e-3  # difference in the layer's loss, relative, and in the mask, as a share of it
_LOOP = "as the official code has it"


def cases() -> list[Case]:
    blocks = [block(4096, "0.5", rank=0), block(4096, "2:4", rank=1), block(11008, "0.5", rank=1)]
    layers = [layer(*SQUARE, rank=0), layer(*UP, rank=2), layer(*DOWN, rank=2)]
    return [*blocks, *layers, block(4096, "0.5", rank=3, compiled=True)]


def block(
    rows: int, pattern: str, rank: int, compiled: bool = False, columns: int = _BLOCK
) -> Case:
    """One block; `compiled`: beside `torch.compile` of the loop, which takes a minute or more to
    compile."""
    n_of_m = (_N, _M) if pattern == "2:4" else None
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
        settings={"part": "block", "pattern": pattern}
        | ({"beside": "torch.compile"} if compiled else {}),
        dtype="float32",
        allowed=_OWN_MASK if n_of_m else _SAME_MASK,
        written=("W", "keep"),
        rank=rank,
        seconds=180 if compiled else 10,
    )


def layer(rows: int, columns: int, rank: int) -> Case:
    """A whole layer, its factor included."""
    providers = [
        Provider("prunebook", _ours, captures=False),
        Provider(
            "loop over columns", _layer_loop, captures=False, note=f"{_LOOP}, factor included"
        ),
        Provider("the factor alone", _factor, captures=False, role=CONTROL, note="prunes nothing"),
    ]
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
        seconds=30 if columns <= 4096 else 75,
    )


def _hessian(generator: torch.Generator, columns: int) -> torch.Tensor:
    """X^T X of inputs that differ in size, float32 `[columns, columns]`."""
    options = {"generator": generator, "device": generator.device}
    x = torch.randn(_TEXTS * columns, columns, **options) * (torch.rand(columns, **options) + 0.1)
    return x.T @ x


def _block_operands(rows: int, columns: int, generator: torch.Generator) -> Operands:
    """W `[columns, rows]` as the kernel takes it, its mask at half of the block, which 2:4 ignores,
    and the factor."""
    W = weight(generator, columns, rows).float()
    U = inverse_factor(_hessian(generator, columns), _DAMPING)
    scores = (W / U.diagonal()[:, None]).abs()
    keep = scores > scores.flatten().kthvalue(count_removed(W.numel(), _SPARSITY)).values
    return {"W": W, "keep": keep, "U": U}


def _block_truth(n_of_m: tuple[int, int] | None, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    return _block_loop(n_of_m, o | {"W": o["W"].double(), "U": o["U"].double()})


def _block_error(result, truth) -> float:
    return max(relative_error(found, wanted) for found, wanted in zip(result, truth, strict=True))


def _block_loop(n_of_m: tuple[int, int] | None, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    Q, E = _loop(o["W"].T.clone(), ~o["keep"].T, o["U"], n_of_m)
    return Q.T, E.T


def _strips(n_of_m: tuple[int, int] | None, o: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    return o["W"], sparsegpt_block_reference(o["W"], o["keep"], o["U"], n_of_m)


def _loop(W, gone, U, n_of_m=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The loop of algorithm 1 over the columns of a block W `[rows, columns]`: pruned weights and
    errors."""
    Q = torch.zeros_like(W)
    E = torch.zeros_like(W)
    gone = gone.clone()
    for j in range(W.shape[1]):
        if n_of_m and j % n_of_m[1] == 0:
            n, m = n_of_m
            scores = W[:, j : j + m] ** 2 / U.diagonal()[j : j + m] ** 2
            lowest = torch.topk(scores, m - n, dim=1, largest=False).indices
            gone[:, j : j + m] = torch.zeros_like(scores, dtype=torch.bool).scatter_(
                1, lowest, True
            )
        w = W[:, j]
        q = w.masked_fill(gone[:, j], 0)
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
    """Three steps to the factor, a sort for each block's threshold, a loop over its columns, a
    product to the rest."""
    W = o["weight"].clone()
    H = o["hessian"].clone()
    H.diagonal().add_(_DAMPING * H.diagonal().mean())
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    for i1 in range(0, W.shape[1], _BLOCK):
        i2 = min(i1 + _BLOCK, W.shape[1])
        scores = W[:, i1:i2] ** 2 / U.diagonal()[i1:i2] ** 2
        threshold = scores.flatten().sort().values[count_removed(scores.numel(), _SPARSITY) - 1]
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
