"""The classification task of articles: whose passages, which split, what is refused."""

import pytest

from prunebook.data import tasks
from prunebook.data.corpora import embedded_articles
from prunebook.data.tasks import article_task
from prunebook.errors import UserError
from prunebook.models.loading import load_model


def test_the_task_of_articles():
    _, tokenizer = load_model("minilm-l6", device="cpu")
    task = article_task(tokenizer, 4, 32)
    longest = sorted(embedded_articles(), key=lambda article: -len(article[1]))
    for label, (_, text) in enumerate(longest[:4]):
        words = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        passages = [words[i : i + 30] for i in range(0, len(words) - 29, 30)]
        for split, rest in {"training": (0, 1, 2), "calibration": (3,), "evaluation": (4,)}.items():
            tokens, labels = task[split]
            expected = [passage for number, passage in enumerate(passages) if number % 5 in rest]
            mine = tokens[labels == label]
            assert mine[:, 1:-1].tolist() == expected
            assert (mine[:, 0] == tokenizer.cls_token_id).all()
            assert (mine[:, -1] == tokenizer.sep_token_id).all()
    assert {len(tokens) == len(labels) for tokens, labels in task.values()} == {True}
    for articles, length in ((1, 32), (10_000, 32), (4, 2)):
        with pytest.raises(
            UserError, match=rf"^{articles} articles in passages of {length} tokens make no task"
        ):
            article_task(tokenizer, articles, length)


def test_articles_too_short_for_the_task_are_refused(monkeypatch):
    _, tokenizer = load_model("minilm-l6", device="cpu")
    by_length = sorted(embedded_articles(), key=lambda article: len(article[1]))
    few = [*by_length[:5], *by_length[-5:]]  # to read all words of all articles takes seconds
    monkeypatch.setattr(tasks, "embedded_articles", lambda: few)
    with pytest.raises(
        UserError, match=r"^article \d+ by length has \d+ tokens, too few for five passages of"
    ) as e:
        article_task(tokenizer, len(few), 500)
    most = int(str(e.value).split()[1]) - 1
    task = article_task(tokenizer, most, 500)
    assert {len(labels.unique()) for _, labels in task.values()} == {most}
