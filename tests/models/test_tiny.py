"""Pretraining from nothing: whose text the tokenizer reads, windows, the model from a seed, two
stages, bad input."""

import pytest
import torch
from tests.refusals import refused_in_one_line

from prunebook.data import corpora
from prunebook.data.corpora import split_of
from prunebook.data.windows import pretraining_tokens
from prunebook.models.tiny import small_llama, train_tokenizer
from prunebook.recovery.finetune import full
from prunebook.recovery.training import Training

VOCABULARY = 300
SIZES = {"hidden": 16, "blocks": 2, "heads": 2, "neurons": 24, "length": 32}


def article(number):
    lines = (
        f"Line {n} of {number}, said the {n % 7} green cats to the {n * number % 11} old dogs."
        for n in range(40)
    )
    return "\n".join(lines)


@pytest.fixture
def articles(monkeypatch):
    """A dozen short articles in place of the embedded ones, some in every split."""
    made = tuple((f"title {number}", article(number)) for number in range(12))
    monkeypatch.setattr(corpora, "embedded_articles", lambda: made)
    assert {split_of(title) for title, _ in made} == set(corpora.SPLITS)
    return made


@pytest.fixture
def tokenizer(articles):
    return train_tokenizer(VOCABULARY)


def test_the_tokenizer_reads_training_articles_alone(articles, monkeypatch):
    words = train_tokenizer(VOCABULARY).get_vocab()
    kept = tuple(each for each in articles if split_of(each[0]) == "training")
    monkeypatch.setattr(corpora, "embedded_articles", lambda: kept)
    assert train_tokenizer(VOCABULARY).get_vocab() == words
    monkeypatch.setattr(
        corpora, "embedded_articles", lambda: ((kept[0][0], "other words, here and there. " * 60),)
    )
    assert train_tokenizer(270).get_vocab() != words


def test_any_text_comes_back(tokenizer):
    text = "Naïve cats — 猫! \t two  spaces\nand a line"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.eos_token_id == 0
    assert (
        tokenizer("Line 3 of 4")["input_ids"]
        == train_tokenizer(VOCABULARY)("Line 3 of 4")["input_ids"]
    )


def test_the_model_depends_on_its_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model, again, other = (small_llama(VOCABULARY, seed=seed, **SIZES) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)  # the caller's random state is as it was
    states = [each.state_dict() for each in (model, again, other)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(
        states[0]["model.embed_tokens.weight"], states[2]["model.embed_tokens.weight"]
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight
    inside = 2 * (4 * 16 * 16 + 3 * 16 * 24 + 2 * 16)
    assert model.num_parameters() == VOCABULARY * 16 + inside + 16
    assert not model.training
    assert model.prunebook_source == "new Llama, 2 x 16, 0.0 M parameters, 300 words"


def test_a_small_model_learns(tokenizer):
    model = small_llama(VOCABULARY, **SIZES)
    text = pretraining_tokens(tokenizer, 160, 32)
    losses = full(model, text, Training(learning_rate=1e-2, warmup=4, batch=4, clip=1.0))
    assert losses[0] == pytest.approx(torch.tensor(VOCABULARY).log().item(), abs=1)
    assert losses[-1] < losses[0] - 2


def test_two_stages_of_rate_and_weight_decay(monkeypatch, tokenizer):
    """12 steps: up to 1 in two, on the line to 0, from step 6 on half of it, and no decay from
    there on."""
    seen = []
    step = torch.optim.AdamW.step

    def watched(optimiser, *arguments):
        group = optimiser.param_groups[0]
        seen.append((group["lr"], group["weight_decay"], group["betas"]))
        return step(optimiser, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    training = Training(
        learning_rate=1e-3, second_rate=5e-4, warmup=2, weight_decay=0.1, betas=(0.9, 0.95)
    )
    full(small_llama(VOCABULARY, **SIZES), pretraining_tokens(tokenizer, 12, 16), training)
    rates = [
        0,
        1 / 2,
        *(1 - n / 12 for n in range(2, 6)),
        *((1 - n / 12) / 2 for n in range(6, 12)),
    ]
    assert [rate for rate, _, _ in seen] == pytest.approx([1e-3 * rate for rate in rates])
    assert [decay for _, decay, _ in seen] == [0.1] * 6 + [0.0] * 6
    assert {betas for _, _, betas in seen} == {(0.9, 0.95)}


@pytest.mark.parametrize("broken_at", [5, 9])
def test_a_run_broken_off_in_either_stage_goes_on_with_the_same_result(
    tokenizer, tmp_path, monkeypatch, broken_at
):
    text = pretraining_tokens(tokenizer, 12, 16)
    settings = {"learning_rate": 1e-2, "second_rate": 5e-3, "warmup": 2, "weight_decay": 0.1}
    whole, broken = (small_llama(VOCABULARY, **SIZES) for _ in range(2))
    expected = full(whole, text, Training(**settings))
    calls = []
    step = torch.optim.AdamW.step

    def breaks(optimiser, *arguments):
        calls.append(None)
        if len(calls) == broken_at:
            raise KeyboardInterrupt
        return step(optimiser, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", breaks)
    training = Training(**settings, checkpoint=tmp_path / "state", checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        full(broken, text, training)
    monkeypatch.undo()
    new = small_llama(VOCABULARY, **SIZES)
    assert full(new, text, training) == expected
    assert all(torch.equal(a, b) for a, b in zip(new.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda _: train_tokenizer(256),
            "vocabulary 256 is not allowed; use a whole number >= 257, e.g. 2048",
        ),
        (lambda _: train_tokenizer(300.0), "vocabulary 300.0 is not allowed"),
        (
            lambda _: train_tokenizer(50_000),
            "vocabulary 50000 is more than the text yields; use at most ",
        ),
        (
            lambda _: small_llama(100, hidden=0),
            "hidden 0 is not allowed; use a whole number >= 1",
        ),
        (
            lambda _: small_llama(100, hidden=20, heads=4),
            "hidden 20 is not 4 heads of even size; use a multiple of 8",
        ),
    ],
)
def test_bad_input_is_one_line(tokenizer, call, message):
    with refused_in_one_line(message):
        call(tokenizer)
