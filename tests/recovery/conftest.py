"""What the tests of training share: text that can be learned."""

import pytest


@pytest.fixture
def text(tokens):
    """Forty windows of repeated text, which can be learned."""
    return tokens[:2].repeat(20, 1)
