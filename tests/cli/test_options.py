"""The option `--json`, and how commands print JSON."""

import json

import click
import pytest
from click.testing import CliRunner

from prunebook.cli.options import json_option, print_json


@click.command()
@json_option
def command(as_json):
    """Print a value as JSON, or a word."""
    if as_json:
        print_json({"name": "李 µ", "rows": [1, None]})
    else:
        click.echo("text")


@pytest.mark.parametrize(
    ("arguments", "output"),
    [([], "text\n"), (["--json"], '{\n  "name": "李 µ",\n  "rows": [\n    1,\n    null\n  ]\n}\n')],
)
def test_json_is_printed_where_it_is_asked_for(arguments, output):
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, result.stdout) == (0, output)


def test_what_is_printed_is_read_back(capsys):
    value = {"a": [1.5, "ß", {"b": True}]}
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value


def test_a_value_that_is_no_json_is_an_error():
    with pytest.raises(TypeError, match="not JSON serializable"):
        print_json({"a": {1, 2}})
