"""Products with sparse and ternary weights."""
