"""The forms of a score: which factors its weight meets. Needs no torch, so that pages can count."""

# Kernels name forms by these numbers. GIVEN: scores stand in the weight's place.
MAGNITUDE = 0
COLUMNS = 1
SHARES = 2
GIVEN = 3

# How many float32 factors a form has for each column, and how many for each row.
FACTORS = {MAGNITUDE: (0, 0), COLUMNS: (1, 0), SHARES: (2, 1), GIVEN: (0, 0)}
