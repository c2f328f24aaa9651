"""Text whose tokens tell where they stood."""

import pytest


@pytest.fixture(scope="session")
def numbers():
    """A tokenizer that reads its text as numbers, one id a word: every token tells where it
    stood."""

    class Numbers:
        def __call__(self, text, add_special_tokens, verbose):
            assert add_special_tokens is False
            return {"input_ids": [int(word) for word in text.split()]}

    return Numbers()


BOS = 7777


@pytest.fixture(scope="session")
def numbers_after_bos(numbers):
    """A tokenizer as `numbers` that begins every text with BOS, as Gemma's does."""

    class NumbersAfterBOS:
        bos_token_id = BOS

        def __call__(self, text, add_special_tokens=True, verbose=True):
            if add_special_tokens:
                return {"input_ids": [BOS]}
            return numbers(text, add_special_tokens, verbose)

    return NumbersAfterBOS()


@pytest.fixture
def counting(tmp_path):
    """A file of the numbers 0..999, ten a line: calibration 0..349, evaluation 350..599, training
    600..999."""
    path = tmp_path / "counting.txt"
    path.write_text(
        "\n".join(" ".join(map(str, range(n, n + 10))) for n in range(0, 1000, 10)),
        encoding="utf-8",
    )
    return path
