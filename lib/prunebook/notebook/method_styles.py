"""One colour and marker for each method, so that it looks the same in all figures of the book."""

import re

# The colours of `palette`, by name; methods of one kind, which stand in one figure, differ in both.
_BLUE = "#0072B2"
_ORANGE = "#E69F00"
_GREEN = "#009E73"
_VERMILION = "#D55E00"
_PURPLE = "#CC79A7"
_SKY = "#56B4E9"
_BLACK = "#000000"
_GREY = "#7F7F7F"

# name of a method -> colour, marker of matplotlib
METHOD_STYLES = {
    # weights
    "magnitude": (_GREY, "x"),
    "wanda": (_BLUE, "o"),
    "sparsegpt": (_ORANGE, "s"),
    "ria": (_GREEN, "^"),
    "owl": (_PURPLE, "v"),
    "dsnot": (_VERMILION, "D"),
    "besa": (_SKY, "P"),
    "llm-surgeon": (_BLACK, "*"),
    "gradual-magnitude": (_GREY, "d"),
    "bitnet-b158": (_BLACK, "h"),
    # structures
    "deeper-layers": (_BLUE, "s"),
    "shortened-llama": (_ORANGE, "^"),
    "llm-pruner": (_GREEN, "D"),
    "minitron": (_VERMILION, "v"),
    "sheared-llama": (_PURPLE, "P"),
    "compresso": (_SKY, "X"),
    "k-prune": (_BLACK, "o"),
    "remove-blocks": (_GREY, "s"),
    # key-value caches
    "h2o": (_BLUE, "^"),
    "keyformer": (_ORANGE, "D"),
    "window": (_GREY, "v"),
    "random": (_GREY, "o"),
}
# what figures call a method otherwise -> its name
_ALIASES = {
    "owl-with-wanda": "owl",
    "llmsurgeon": "llm-surgeon",
    "kprune": "k-prune",
    "h2ocache": "h2o",
    "keyformercache": "keyformer",
    "windowcache": "window",
    "randomcache": "random",
}


def method_style(name: str) -> tuple[str, str] | None:
    """Colour and marker of a method; None for what is no method of the book.

    Args:
        name: name or label, e.g. `llm-pruner`, `LLM-Pruner` or `LLM Pruner`.
    """
    key = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    return METHOD_STYLES.get(_ALIASES.get(key, key))
