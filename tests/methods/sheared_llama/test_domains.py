"""Domains of text: the rule, windows of their own articles, what is held out, and bad input."""

import re

import pytest
import torch

from prunebook.data.corpora import embedded_articles, split_of
from prunebook.errors import UserError
from prunebook.methods.sheared_llama.domains import domain_of, domain_tokens


def test_a_text_is_of_the_domain_of_its_words():
    assert domain_of("He was born there and his father died.") == "people"
    assert domain_of("The city is the capital of a region.") == "places"
    assert domain_of("Atoms of the acid absorb energy.") == "science"
    assert domain_of("") == "people"  # the first of equal ones


class Words:
    """A tokenizer that numbers the articles: each word is the index of its article among the
    training articles."""

    def __init__(self, texts):
        self._of = {text: index for index, text in enumerate(texts)}

    def __call__(self, text, **_):
        return {
            "input_ids": [
                self._of[article] for article in text.split("\n\n") for _ in article.split()
            ]
        }


def test_windows_come_from_training_articles_of_their_domain_and_do_not_overlap():
    texts = [text for title, text in embedded_articles() if split_of(title) == "training"]
    windows, held_out = domain_tokens(Words(texts), samples=50, held_out=10, length=16)
    assert list(windows) == list(held_out) == ["people", "places", "science"]
    for domain in windows:
        assert windows[domain].shape == (50, 16)
        assert held_out[domain].shape == (10, 16)
        articles = torch.cat([windows[domain], held_out[domain]]).unique()
        assert {domain_of(texts[index]) for index in articles} == {domain}


def test_held_out_windows_are_no_training_windows():
    """Each word has its own number here, so that a window tells where it stood."""

    def tokenizer(text, **_):
        return {"input_ids": list(range(len(text.split())))}

    windows, held_out = domain_tokens(tokenizer, samples=200, held_out=40, length=16, seed=3)
    for domain in windows:
        starts, others = (set(part[domain][:, 0].tolist()) for part in (windows, held_out))
        assert len(starts) == 200
        assert len(others) == 40
        assert not starts & others


def test_too_little_text_is_one_line():
    def tokenizer(text, **_):
        return {"input_ids": list(range(1000))}

    with pytest.raises(
        UserError, match=re.escape("people has no 9 windows of 100 tokens; use 1 to 8 of them")
    ):
        domain_tokens(tokenizer, samples=9, held_out=1, length=100)
