"""What commands share: the option `--json`, and how they print it."""

import json
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """Print a value of JSON types, indented, with letters of all alphabets as they are."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
