"""Instructions: labels only on responses, the same under every prefix, splits, and bad input."""

import pytest
import torch
from tests.refusals import refused_in_one_line

from prunebook.data.corpora import embedded_articles, split_of
from prunebook.errors import UserError
from prunebook.methods.compresso import instruction_data
from prunebook.methods.compresso.instruction_data import (
    IGNORED,
    check_instructions,
    instruction_windows,
)


class Letters:
    """A tokenizer of single letters: ids are code points, others than ASCII 127."""

    all_special_ids = (0, 1, 2)

    def __call__(self, text, **_):
        return {"input_ids": [min(ord(letter), 127) for letter in text]}

    def __len__(self):
        return 128


def text_of(ids):
    return "".join(map(chr, ids))


@pytest.fixture(scope="module")
def windows():
    return instruction_windows(Letters(), 9, 256)


def test_labels_are_the_response_and_nothing_before_it(windows):
    assert windows.shape == (9, 256, 2)
    assert windows.dtype == torch.int64
    for tokens, labels in zip(*windows.unbind(2), strict=True):
        start = text_of(tokens).index("\nAnswer:") + len("\nAnswer:")
        assert (labels[:start] == IGNORED).all()
        assert torch.equal(labels[start:], tokens[start:])


def test_the_three_kinds_take_turns_and_go_on_with_what_they_quote(windows):
    whole = (
        "\n".join(body for _, body in embedded_articles())
        .encode("ascii", "replace")
        .decode()
        .replace("?", "\x7f")
    )
    kinds = set()
    for tokens in windows[..., 0]:
        prompt, response = text_of(tokens).replace("?", "\x7f").split("\nAnswer:", 1)
        kinds.add(prompt.split(" an article on ")[0].split("\n")[0])
        quoted = prompt.split("\nPassage:")[1].removesuffix("\n") if "\nPassage:" in prompt else ""
        assert len(quoted) in (0, 64)
        assert quoted + response in whole
    assert len(kinds) == 3


def test_a_prefix_changes_neither_instructions_nor_responses(windows):
    prefix = instruction_data.prefix_tokens(Letters())
    with_prefix = instruction_data.after_prefix(windows, prefix)
    assert with_prefix.shape == (9, len(prefix) + 256, 2)
    assert torch.equal(with_prefix[:, len(prefix) :], windows)
    assert (with_prefix[:, : len(prefix), 1] == IGNORED).all()
    assert text_of(with_prefix[0, : len(prefix), 0]) == instruction_data.PREFIX
    assert torch.equal(instruction_data.after_prefix(windows, []), windows)


def test_a_random_prefix_has_no_special_tokens_and_goes_by_its_seed():
    drawn = [instruction_data.random_prefix(Letters(), 500, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 500
    assert min(drawn[0]) == 3
    assert max(drawn[0]) == 127


def test_splits_share_no_article_and_seeds_differ():
    titles = {}
    for split in ("training", "evaluation"):
        drawn = instruction_windows(Letters(), 60, 256, split=split)
        prompts = [text_of(tokens).split("\nAnswer:")[0] for tokens in drawn[..., 0]]
        named = (
            prompt.split("an article on ")[1] for prompt in prompts if "an article on " in prompt
        )
        titles[split] = {title.split("\n")[0].rstrip(".") for title in named}
    assert titles["training"].isdisjoint(titles["evaluation"])
    known = {
        text_of(Letters()(title)["input_ids"]).rstrip("."): split_of(title)
        for title, _ in embedded_articles()
    }
    assert all(known[title] == split for split, found in titles.items() for title in found)
    first, second = (instruction_windows(Letters(), 3, 256, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"split": "test"}, "split 'test' is unknown; use calibration"),
        ({"count": 0}, "0 passages of 256 tokens cannot be had of training articles; use 1 to "),
        ({"count": 10**7}, "10000000 passages of 256 tokens cannot be had"),
        ({"length": 40}, "length 40 has no room for a response after .. tokens; use twice as many"),
    ],
)
def test_bad_input_is_one_clear_line(named, message):
    with refused_in_one_line(message):
        instruction_windows(Letters(), **{"count": 3, "length": 256} | named)


def test_bad_labels_are_refused(make_model, tokens):
    model = make_model("llama")
    good = torch.stack([tokens, tokens], 2)
    check_instructions(model, good)
    other = good.clone()
    none = good.clone()
    other[2, 3, 1] = (other[2, 3, 0] + 1) % 100
    none[4, 1:, 1] = IGNORED
    for wrong in (other, none):
        with pytest.raises(
            UserError, match="labels must be token ids where a token is predicted, some in"
        ):
            check_instructions(model, wrong)
    with pytest.raises(UserError, match=r"windows \[7, 16, 3\] must be \[n, length, 2\]"):
        check_instructions(model, torch.stack([tokens] * 3, 2))
    with pytest.raises(UserError, match="windows holds token id 100, outside the vocabulary"):
        check_instructions(model, torch.full_like(good, 100))
