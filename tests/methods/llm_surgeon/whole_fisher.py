"""The Fisher matrix of a small linear as a whole, to compare its Kronecker factors with."""

import torch


def spd(size, seed, dtype=torch.float64):
    """A random positive definite matrix with clear correlations."""
    x = torch.randn(size, 3 * size, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x @ x.T / (3 * size) + 0.3


def problem(rows=4, columns=6, seed=0):
    """`W, G, A, G^-1, A^-1` in float64."""
    W = torch.randn(
        rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    G = spd(rows, seed + 1)
    A = spd(columns, seed + 2)
    return W, G, A, torch.linalg.inv(G), torch.linalg.inv(A)


def surgeon(W, G, A, removed):
    """Cost and new weight of removing the entries `removed` together, from the whole matrix `G (x)
    A`."""
    F = torch.kron(G, A)
    theta = W.flatten()
    q = removed.flatten()
    inverse = torch.linalg.inv(F)
    solved = torch.linalg.solve(inverse[q][:, q], theta[q])
    return 0.5 * theta[q] @ solved, (theta - inverse[:, q] @ solved).view(W.shape)


def loss(W, new, G, A):
    """`delta^T (G (x) A) delta / 2`, the rise of a loss whose Hessian is exactly that."""
    delta = (new - W).flatten()
    return 0.5 * delta @ torch.kron(G, A) @ delta


def entries(shape, rows=(), columns=()):
    removed = torch.zeros(shape, dtype=torch.bool)
    removed[list(rows)] = True
    removed[:, list(columns)] = True
    return removed
