"""A law like the one published for T5, and a grid of runs to evaluate it on."""

import numpy as np

from prunebook.methods.sparse_scaling_laws.scaling_law import Law

LAW = Law(0.5678, 0.7216, 1.5227, 0.2451, 0.1054, 0.2027, 0.6507)
# The same law with N in weights, where it was in millions, and D in tokens, where in billions.
RAW = LAW.in_units(1e-6, 1e-9)
# Sparsity, weights and tokens of each run.
GRID = [
    np.ravel(x)
    for x in np.meshgrid([0, 0.5, 0.75, 0.875], [1.3e6, 5e6, 2e7, 8e7], [1e9, 3e9, 1e10])
]
