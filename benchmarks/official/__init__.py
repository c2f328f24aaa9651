"""Pruning methods beside the authors' own code: same weights, same tokens, one run. See
`__main__`."""
