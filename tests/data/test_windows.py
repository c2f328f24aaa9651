"""Token windows from text that calibration, evaluation and training do not share."""

import inspect

import pytest
import torch
from tests.data.conftest import BOS

from prunebook.data.windows import (
    calibration_tokens,
    evaluation_tokens,
    pretraining_tokens,
    training_tokens,
)
from prunebook.errors import UserError

OF_A_SPLIT = (calibration_tokens, training_tokens, evaluation_tokens, pretraining_tokens)


def test_calibration_windows_are_whole_distinct_and_in_the_calibration_text(numbers, counting):
    windows = calibration_tokens(numbers, samples=30, length=10, seed=0, text=counting)
    assert windows.shape == (30, 10)
    assert windows.dtype == torch.int64
    for window in windows:
        assert torch.equal(window, torch.arange(window[0], window[0] + 10))
    assert windows.unique().numel() == 300  # no overlap
    assert windows.max() < 350


def test_calibration_follows_its_seed(numbers, counting):
    draws = [calibration_tokens(numbers, 5, 10, seed, counting) for seed in (0, 0, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[2], draws[3])
    offsets = {
        int(calibration_tokens(numbers, 1, 10, seed, counting)[0, 0]) % 10 for seed in range(40)
    }
    assert len(offsets) > 5  # the grid moves as well


def test_training_windows_are_of_the_training_text(numbers, counting):
    windows = training_tokens(numbers, 30, 10, 1, counting)
    assert windows.min() >= 600
    assert windows.unique().numel() == 300
    assert torch.equal(windows, training_tokens(numbers, 30, 10, 1, counting))
    assert not torch.equal(windows, training_tokens(numbers, 30, 10, 2, counting))


def test_evaluation_windows_are_evenly_spaced_over_all_of_the_text(numbers, counting):
    assert evaluation_tokens(numbers, 5, 10, counting)[:, 0].tolist() == [350, 400, 450, 500, 550]
    assert evaluation_tokens(numbers, 3, 10, counting)[:, 0].tolist() == [350, 430, 510]
    every = evaluation_tokens(numbers, None, 10, counting)
    assert torch.equal(every, torch.arange(350, 600).view(25, 10))
    assert evaluation_tokens(numbers, None, 60, counting).shape == (4, 60)  # the rest is dropped


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (
            calibration_tokens,
            (35, 10, 0),
            "calibration text .* has 350 tokens, too few for 35 windows of 10; .* most 34",
        ),
        (
            evaluation_tokens,
            (26, 10),
            "evaluation text .* has 250 tokens, too few for 26 windows of 10; .* at most 25",
        ),
        (evaluation_tokens, (None, 251), "too few for 1 windows of 251; ask for at most 0"),
        (calibration_tokens, (1, 400), "at most 0"),
        (calibration_tokens, (0, 10), "samples 0 is not allowed; use a whole number >= 1"),
        (training_tokens, (2.5, 10), "samples 2.5 is not allowed; use a whole number >= 1"),
        (evaluation_tokens, (0, 10), "windows 0 is not allowed; use a whole number >= 1"),
        (evaluation_tokens, (3, 0), "length 0 is not allowed; use a whole number >= 1"),
        (evaluation_tokens, (None, 0), "length 0 is not allowed"),
        (pretraining_tokens, (0,), "windows 0 is not allowed; use a whole number >= 1"),
        (pretraining_tokens, (1, 201), "has 400 tokens, too few for windows of 201; use less"),
        (calibration_tokens, (-1, 10), "samples -1 is not allowed"),
    ],
)
def test_too_little_text_says_how_much_there_is(numbers, counting, function, arguments, message):
    with pytest.raises(UserError, match=message):
        function(numbers, *arguments, text=counting)


def test_the_most_that_is_offered_can_be_had(numbers, counting):
    for seed in range(10):
        assert len(calibration_tokens(numbers, 34, 10, seed, counting)) == 34
    assert len(evaluation_tokens(numbers, 25, 10, counting)) == 25


def test_the_embedded_text_is_enough_for_the_defaults(embedded):
    _, tokenizer = embedded
    calibration = calibration_tokens(tokenizer, 64, 512)
    evaluation = evaluation_tokens(tokenizer, 64, 512)
    assert calibration.shape == evaluation.shape == (64, 512)
    assert calibration.max() < 49152
    assert torch.equal(evaluation, evaluation_tokens(tokenizer, 64, 512))


def test_pretraining_windows_are_in_new_order_every_pass(numbers, counting):
    windows = pretraining_tokens(numbers, 40, 20, seed=1, text=counting)
    assert windows.shape == (40, 20)
    assert windows.dtype == torch.int64
    for window in windows:
        assert torch.equal(window, torch.arange(window[0], window[0] + 20))
    starts = windows[:, 0].tolist()
    passes = [starts[:19], starts[19:38]]  # a grid that does not start at 600 has 19 windows
    for each in passes:
        assert len({start % 20 for start in each}) == 1  # on one grid
        assert len(set(each)) == 19  # none twice
        assert each != sorted(each)
        assert 600 < min(each) < 620
    assert passes[0][0] % 20 != passes[1][0] % 20
    again = pretraining_tokens(numbers, 5, 20, seed=1, text=counting)
    assert torch.equal(again, windows[:5])
    other = pretraining_tokens(numbers, 5, 20, seed=2, text=counting)
    assert not torch.equal(other, windows[:5])


def test_the_signatures_agree():
    """The tokenizer, how many windows, their length, a seed where they are drawn, and the text."""
    drawn = (calibration_tokens, training_tokens, pretraining_tokens)
    for function in (*drawn, evaluation_tokens):
        names = list(inspect.signature(function).parameters)
        assert names[0] == "tokenizer"
        assert names[2] == "length"
        assert names[3:] == (["seed", "text", "bos"] if function in drawn else ["text", "bos"])


@pytest.mark.parametrize("function", OF_A_SPLIT)
def test_windows_begin_with_bos_where_the_tokenizer_puts_it(numbers_after_bos, counting, function):
    windows = function(numbers_after_bos, 5, 10, text=counting)
    assert windows.shape == (5, 10)
    assert (windows[:, 0] == BOS).all()
    # Nine tokens of text follow, in their order and without overlap.
    steps = windows[:, 1:].diff(dim=1)
    assert (steps == 1).all()
    assert windows[:, 1:].unique().numel() == 45


@pytest.mark.parametrize("function", OF_A_SPLIT)
def test_without_bos_windows_are_those_of_a_plain_tokenizer(
    numbers, numbers_after_bos, counting, function
):
    plain = function(numbers, 5, 10, text=counting)
    assert torch.equal(function(numbers_after_bos, 5, 10, text=counting, bos=False), plain)


def test_windows_of_text_after_bos_are_those_of_one_token_less(
    numbers, numbers_after_bos, counting
):
    after_bos = evaluation_tokens(numbers_after_bos, None, 11, counting)
    assert torch.equal(after_bos[:, 1:], evaluation_tokens(numbers, None, 10, counting))


@pytest.mark.parametrize(
    ("bos", "length", "message"),
    [
        ("yes", 10, "bos 'yes' is not allowed; use 'auto', True or False"),
        ("auto", 1, "length 1 leaves no room for text after BOS; use 2 or more"),
    ],
)
def test_a_bad_bos_is_refused(numbers_after_bos, counting, bos, length, message):
    with pytest.raises(UserError, match=message):
        evaluation_tokens(numbers_after_bos, 5, length, counting, bos=bos)


def test_bos_needs_a_token(numbers, counting):
    with pytest.raises(UserError, match="bos=True, and the tokenizer has no such token"):
        evaluation_tokens(numbers, 5, 10, counting, bos=True)
