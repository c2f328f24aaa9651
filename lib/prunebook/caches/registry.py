"""The papers' caches by name; read without running it by what needs the names alone."""

# name of a paper's cache -> (module here, class)
REGISTRY = {
    "h2o": ("h2o", "H2OCache"),
    "keyformer": ("keyformer", "KeyformerCache"),
}
