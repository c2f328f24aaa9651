"""Under which profile a page runs. A quick run proves that a page works, and judges nothing."""

import os

# `prunebook run` says in this variable under which profile a notebook runs.
PROFILE_VARIABLE = "PRUNEBOOK_PROFILE"
QUICK = "quick"


def is_quick_run() -> bool:
    """Is this a page that `prunebook run` executes under the quick profile?"""
    return os.environ.get(PROFILE_VARIABLE) == QUICK
