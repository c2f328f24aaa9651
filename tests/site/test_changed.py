"""The day of a source's last change, in small repositories."""

import subprocess

from prunebook.site.changed import changed_dates


def git(folder, *arguments, day="2026-01-01"):
    identity = ["-c", "user.name=a", "-c", "user.email=a@x.org", "-c", "commit.gpgsign=false"]
    environment = {
        "GIT_COMMITTER_DATE": f"{day}T12:00:00Z",
        "GIT_AUTHOR_DATE": f"{day}T12:00:00Z",
        "PATH": "/usr/bin:/bin",
    }
    subprocess.run(
        ["git", "-C", folder, *identity, *arguments],
        check=True,
        capture_output=True,
        env=environment,
    )


def test_a_file_has_the_day_of_its_last_commit(tmp_path):
    root = tmp_path / "origin" / "book"
    (root / "papers").mkdir(parents=True)
    (tmp_path / "origin" / "outside").write_text("")
    git(tmp_path / "origin", "init", "-q")
    for day, name, text in (
        ("2026-01-02", "papers/ä b.ipynb", "1"),
        ("2026-02-03", "index.md", "1"),
        ("2026-03-04", "papers/ä b.ipynb", "2"),
    ):
        (root / name).write_text(text)
        git(tmp_path / "origin", "add", "-A")
        git(tmp_path / "origin", "commit", "-qm", "x", day=day)
    (root / "new.md").write_text("not committed")
    assert changed_dates(root) == {"papers/ä b.ipynb": "2026-03-04", "index.md": "2026-02-03"}
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{tmp_path / 'origin'}", "shallow")
    assert changed_dates(tmp_path / "shallow" / "book") == {}


def test_there_is_no_day_outside_a_repository(tmp_path):
    assert changed_dates(tmp_path) == {}
