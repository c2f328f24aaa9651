"""The scripts that tables need."""

import re

import pytest

from prunebook.errors import UserError
from prunebook.site import table_scripts
from prunebook.site.table_scripts import write_scripts


def test_the_table_library_is_a_plain_script(tmp_path):
    write_scripts(tmp_path / "scripts")
    text = (tmp_path / "scripts" / "datatables.js").read_text()
    assert sorted(path.name for path in (tmp_path / "scripts").iterdir()) == [
        "datatables.js",
        "explorer.js",
        "scoreboard.js",
        "tables.js",
    ]
    assert text.startswith("(() => {")
    assert re.search(r"window\.DataTable = \w+;", text)
    assert not re.search(r"^\s*(import|export)\b|[;}]export\s*\{", text, re.MULTILINE)


def test_a_table_library_of_another_form_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_scripts, "_EXPORT", re.compile("nothing like this"))
    with pytest.raises(
        UserError, match=r"itables 2\.\S+: dt_bundle\.js has no default export; install the version"
    ):
        write_scripts(tmp_path / "scripts")
