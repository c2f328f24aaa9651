"""Token windows from text that calibration, evaluation and training do not share."""

import json

import pytest
from tests.refusals import refused_in_one_line

from prunebook.data.corpora import SPLITS, clean, embedded_articles, split_of, text_of
from prunebook.errors import UserError


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
    with refused_in_one_line(rf"text '{name}' cannot be loaded \(.+\); use the embedded text"):
        text_of("calibration", name)


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
