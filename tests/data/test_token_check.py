"""Tokens that a model can read."""

import pytest
import torch

from prunebook.data.token_check import check_tokens
from prunebook.errors import UserError


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.full((2, 4), 100), "token id 100, outside the vocabulary 0..99"),
        (torch.full((2, 4), -1), "token id -1, outside the vocabulary"),
        (torch.zeros(2, 4), r"int64 tensor \[n, length\], not empty, not torch.float32 \[2, 4\]"),
        (torch.zeros(4, dtype=torch.int64), r"not torch.int64 \[4\]"),
        (torch.zeros(0, 4, dtype=torch.int64), r"not torch.int64 \[0, 4\]"),
        ([[1, 2]], "not list"),
    ],
)
def test_bad_tokens_are_refused(make_model, tokens, message):
    with pytest.raises(UserError, match=message):
        check_tokens(make_model("llama"), tokens)


def test_tokens_without_length_are_refused(make_model):
    with pytest.raises(UserError, match="int64 tensor"):
        check_tokens(make_model("llama"), torch.zeros(2, 0, dtype=torch.int64))
