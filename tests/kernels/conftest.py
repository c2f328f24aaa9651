"""What the tests of kernels share."""

import pytest
from tests.kernels.comparing import unwritten_memory_is_nan


@pytest.fixture
def nan_memory():
    """Memory that a kernel leaves unwritten holds NaN, so that nothing passes by chance."""
    with unwritten_memory_is_nan():
        yield
