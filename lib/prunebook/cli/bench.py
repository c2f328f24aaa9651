"""The commands that measure times: `bench kernels`."""

import click

from .. import catalog


@click.group()
def bench():
    """Time the library on this machine."""


@bench.command()
@click.option(
    "--only",
    multiple=True,
    metavar="KERNEL",
    help="Only this kernel, e.g. select-rows; repeatable.",
)
@click.option(
    "--minutes",
    default=8.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Budget of time; a case begins only if it fits.",
)
@click.pass_context
def kernels(ctx: click.Context, only: tuple[str, ...], minutes: float):
    """Time the kernels on this GPU beside what users pick today; exit code 1 if one is wrong.

    The record is written to benchmarks/results/, case by case. What it holds for the same sources,
    versions and device is not measured again.
    """
    root = catalog.find_root()
    from ..bench.gpu import GpuTimer, check_cuda

    check_cuda()
    from ..bench.cases import all_cases
    from ..bench.run import bench_kernels, chosen
    from ..bench.table import summary

    done = bench_kernels(root, chosen(all_cases(), only), GpuTimer(), 60 * minutes, tell=click.echo)
    click.echo("\n" + summary(done.record, [*done.measured, *done.known], done.run))
    click.echo(
        f"{len(done.measured)} cases measured, {len(done.known)} known already, in "
        f"{done.run.seconds:.0f} s"
    )
    click.echo(done.path)
    if done.wrong:
        ctx.exit(1)
