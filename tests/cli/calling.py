"""How tests call the command."""

from click.testing import CliRunner

from prunebook.cli.main import main


def call(*arguments, code=0):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def error(*arguments) -> str:
    """The one line of an error that a user caused."""
    result = call(*arguments, code=2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line
