"""Token windows from text that calibration, evaluation and training do not share."""

import json

import pytest
import torch

from prunebook.data.corpora import SPLITS, clean, embedded_articles, split_of, text_of
from prunebook.data.tasks import article_task
from prunebook.data.windows import calibration_tokens, evaluation_tokens, training_tokens
from prunebook.errors import UserError
from prunebook.models.loading import load_model


@pytest.fixture(scope="session")
def numbers():
    """A tokenizer that reads its text as numbers, one id a word: every token tells where it
    stood."""

    class Numbers:
        def __call__(self, text, add_special_tokens, verbose):
            assert add_special_tokens is False
            return {"input_ids": [int(word) for word in text.split()]}

    return Numbers()


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


def words(text):
    return [int(word) for word in text.split()]


def test_a_file_is_cut_at_35_and_60_percent_of_its_lines(counting):
    assert words(text_of("calibration", counting)) == list(range(350))
    assert words(text_of("evaluation", str(counting))) == list(range(350, 600))
    assert words(text_of("training", counting)) == list(range(600, 1000))


def test_embedded_splits_share_no_article_and_leave_none_out():
    titles = {
        split: {title for title, _ in embedded_articles() if split_of(title) == split}
        for split in SPLITS
    }
    assert (
        len(set.union(*titles.values()))
        == sum(map(len, titles.values()))
        == len(embedded_articles())
        > 50
    )
    for split in SPLITS:
        text = text_of(split)
        assert len(text) > 300_000
        for title, body in embedded_articles():
            assert (body in text) is (title in titles[split])


def test_the_split_of_a_title_never_moves():
    splits = [split_of(title) for title in ("Anarchism", "Autism", "Albedo", "Aristotle")]
    assert splits == ["training", "calibration", "evaluation", "training"]


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
        (calibration_tokens, (0, 10), "number of windows must be at least 1, not 0"),
        (evaluation_tokens, (0, 10), "number of windows must be at least 1, not 0"),
        (evaluation_tokens, (3, 0), "length must be at least 1, not 0"),
        (calibration_tokens, (-1, 10), "not -1"),
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


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("déjà vu".encode("latin-1"))
    with pytest.raises(UserError, match=f"text file {path} cannot be read as UTF-8"):
        text_of("calibration", path)


def test_an_unknown_split_is_refused():
    with pytest.raises(
        UserError, match="split 'test' is unknown; use calibration, evaluation, training"
    ):
        text_of("test")


def write_rows(path, rows, column="text"):
    path.write_text("".join(json.dumps({column: row}) + "\n" for row in rows))


@pytest.fixture
def datasets_cache(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def test_a_datasets_folder_is_split_by_rows(tmp_path, datasets_cache):
    folder = tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "train.jsonl", ["a", " ", "b", "c", "", "d"])
    write_rows(folder / "test.jsonl", ["x", "", "y"])
    assert text_of("calibration", folder) == "a\n\nb"
    assert text_of("training", folder) == "c\n\nd"
    assert text_of("evaluation", str(folder)) == "x\n\ny"


def test_a_dataset_without_text_is_refused(tmp_path, datasets_cache):
    folder = tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "train.jsonl", ["a"], column="body")
    with pytest.raises(UserError, match="has the columns body; a column 'text' is needed"):
        text_of("calibration", folder)
    with pytest.raises(UserError, match="cannot be loaded"):
        text_of("evaluation", folder)  # it has no split `test`


@pytest.mark.parametrize("name", ["wikitext", "c4", "nobody/nothing", "/no/such/file.txt"])
def test_a_hub_that_is_missing_is_one_clear_line(name, datasets_cache):
    with pytest.raises(
        UserError, match=rf"text '{name}' cannot be loaded \(.+\); use the embedded text"
    ) as caught:
        text_of("calibration", name)
    assert "\n" not in str(caught.value)


PROSE = "one two three four five six seven eight"


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (PROSE, PROSE),
        ("too short a line of prose here", ""),
        (f"== {PROSE} ==", ""),
        (f"| {PROSE}", ""),
        (f"! {PROSE}", ""),
        (f"'''{PROSE}''' ''end''", f"{PROSE} end"),
        (f"* {PROSE}", PROSE),
        (f"#: {PROSE}", PROSE),
        (f"{PROSE} ( ) nine [ ] .", f"{PROSE} nine."),
        (f"{PROSE} ( , nine )", f"{PROSE} (nine)"),
        (f"{PROSE} <ref>nine</ref>&nbsp;ten", f"{PROSE} nine ten"),
        (f"{PROSE}  ,  nine", f"{PROSE}, nine"),
        (f"{PROSE} {{{{nine}}}} [[ten]]", f"{PROSE} nine ten"),
        (f"{PROSE}\n\nshort\n{PROSE}", f"{PROSE}\n{PROSE}"),
        ("it's one two three four five six seven", "it's one two three four five six seven"),
        ("", ""),
    ],
)
def test_markup_is_cleaned(raw, cleaned):
    assert clean(raw) == cleaned


def test_the_embedded_text_holds_no_markup():
    for _, body in embedded_articles():
        for line in body.splitlines():
            assert len(line.split()) >= 8
            assert not any(
                mark in line for mark in ("[[", "]]", "{{", "}}", "'''", "&nbsp;", "<ref")
            )


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


def test_articles_too_short_for_the_task_are_refused():
    _, tokenizer = load_model("minilm-l6", device="cpu")
    with pytest.raises(
        UserError, match=r"^article \d+ by length has \d+ tokens, too few for five passages of"
    ) as e:
        article_task(tokenizer, len(embedded_articles()), 500)
    most = int(str(e.value).split()[1]) - 1
    task = article_task(tokenizer, most, 500)
    assert {len(labels.unique()) for _, labels in task.values()} == {most}
