"""How tests expect a request to be refused."""

import contextlib

import pytest

from prunebook.errors import UserError


@contextlib.contextmanager
def refused_in_one_line(pattern: str):
    """The block must raise a `UserError` of one line in which the regular expression matches."""
    with pytest.raises(UserError, match=pattern) as caught:
        yield
    assert "\n" not in str(caught.value)
