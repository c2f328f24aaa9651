"""The keys that the library adds to a model's config.json.

A changed model keeps its architecture. Where the architecture's own fields cannot say what its
blocks now hold, one of these keys does: `save_model` writes it with the configuration, and
`load_model` builds the changed layers from it before it reads the weights.
"""

from typing import Any

# Blocks that differ in width (written by `surgery.sync_config`): a dict of the names "heads",
# "kv_heads" and "neurons", each with a list of one count a block.
WIDTHS = "prunebook_widths"

# Linears that are `BitLinear` (written by `ternary.replace_linears` and `ternary.pack`): a dict of
# "norm", whether each layer norms its own input, and "packed", whether the weights are stored as
# two-bit codes.
TERNARY = "prunebook_ternary"

# Linears whose zeros are not stored (written by `packed.compress`): a dict of the full name of each
# packed linear and its form, e.g. {"form": "bitmap", "size": 4096}.
COMPRESSED = "prunebook_packed"

KEYS = (WIDTHS, TERNARY, COMPRESSED)


def needs_prunebook(config: Any) -> bool:
    """Whether a model of this configuration is reloaded by `load_model` only, and not by plain
    `transformers`.

    Args:
        config: a configuration of transformers.
    """
    return any(hasattr(config, key) for key in KEYS)


def reloads_with(config: Any) -> str:
    """What reads a model of this configuration from a folder: `transformers` or `prunebook`."""
    if needs_prunebook(config):
        return "prunebook"
    return "transformers"
