"""The `prunebook` command. It is thin: it parses arguments, calls the library and prints."""

import click

from .. import __version__
from ..errors import UserError
from . import bench, book, check, models, papers


class _Group(click.Group):
    """A group that shows a `UserError` as one line on standard error, with exit code 2."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except UserError as error:
            if ctx.params["debug"]:
                raise
            click.echo("prunebook: " + " ".join(str(error).split()), err=True)
            ctx.exit(2)


@click.group(cls=_Group)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__)
def main(debug: bool):
    """The Pruning Book: LLM-pruning papers that run."""


for _command in (
    papers.list_papers,
    papers.show,
    papers.new,
    papers.add,
    check.check,
    models.methods,
    models.prune,
    models.evaluate,
    book.run,
    book.build,
    book.preview,
    book.serve,
    book.export,
    bench.bench,
):
    main.add_command(_command)
