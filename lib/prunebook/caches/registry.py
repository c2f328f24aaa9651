"""The papers' caches by name. The table is also read without running it."""

# slug of a paper -> (module in this package, class)
REGISTRY = {
    "h2o": ("h2o", "H2OCache"),
    "keyformer": ("keyformer", "KeyformerCache"),
}
