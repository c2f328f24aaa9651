"""The `prunebook` command. Thin: it parses arguments, calls the library and prints."""

import functools
import json

import click
import yaml

from .. import __version__, catalog
from ..errors import UserError
from ..notebook.tables import results_text
from . import bench, papers


class _Group(click.Group):
    """Shows a UserError as one line on stderr, with exit code 2."""

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
    papers.new,
    papers.add,
    papers.check,
    papers.preview,
    bench.bench,
):
    main.add_command(_command)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _model_options(command):
    """The options of every command that loads a model."""
    options = (
        click.option("--length", default=512, show_default=True, help="Tokens a window."),
        click.option(
            "--text", metavar="NAME_OR_FILE", help="Text instead of the embedded articles."
        ),
        click.option("--device", default="auto", show_default=True),
        click.option("--dtype", default="auto", show_default=True),
        _json_option,
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def _print_json(value):
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _as_dict(paper: catalog.Paper) -> dict:
    return {"notebook": f"papers/{paper.path.name}", **paper.record.model_dump(mode="json")}


def _tags(record: catalog.Record) -> list[str]:
    """Each facet as `type=Unstructured,Semi-structured`."""
    return [f"{name}={','.join(facet.values)}" for name, facet in record.facets().items()]


def _state(record: catalog.Record) -> str:
    return "runs" if record.method else "not run yet"


@main.command("list")
@click.option(
    "--tag", "tags", multiple=True, metavar="FACET=VALUE", help="Only with this tag; repeatable."
)
@_json_option
def list_papers(tags: tuple[str, ...], as_json: bool):
    """List the papers."""
    wanted = papers.parse_tags(tags)
    chosen = [
        paper
        for paper in catalog.read_papers(catalog.find_root())
        if all(value in paper.record.facets()[facet].values for facet, value in wanted)
    ]
    if as_json:
        _print_json([_as_dict(paper) for paper in chosen])
    elif chosen:
        rows = [
            {
                "year": record.year,
                "slug": record.slug,
                "short": record.short,
                "venue": f"{record.venue.name} {record.venue.year}",
                "tags": " ".join(_tags(record)),
                "state": _state(record),
            }
            for record in (paper.record for paper in chosen)
        ]
        click.echo(results_text(rows))


@main.command()
@click.argument("slug")
@_json_option
def show(slug: str, as_json: bool):
    """Show the record of one paper."""
    paper = catalog.find_paper(catalog.find_root(), slug)
    if as_json:
        _print_json(_as_dict(paper))
        return
    record = paper.record
    kind = "official" if record.code and record.code.official else "community"
    lines = {
        "authors": ", ".join(record.authors),
        "venue": f"{record.venue.name} {record.venue.year} ({record.venue.kind})",
        "paper": record.url,
        "code": record.code
        and f"{record.code.url} ({kind}, {record.code.license or 'no licence stated'})",
        "tags": "  ".join(_tags(record)),
        "method": record.method or _state(record),
        "notebook": f"papers/{paper.path.name}",
    }
    click.echo(f"{record.heading}\n\n{record.takeaway}\n")
    for name, value in lines.items():
        if value:
            click.echo(f"{name:<10}{value}")
    for link in record.links:
        click.echo(f"{link.label.lower():<10}{link.url}")


def _parse_options(options: tuple[str, ...]) -> dict:
    """`key=value` pairs; a value is read as YAML, so that numbers and true/false are no text."""
    parsed = {}
    for option in options:
        key, found, value = option.partition("=")
        if not (found and key.isidentifier()):
            raise UserError(f"--option {option!r} must be key=value, as in --option damping=0.05")
        if key in ("sparsity", "pattern"):
            raise UserError(f"--option {option!r} has an option of its own: --{key} {value}")
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--option {option!r} has a value that is no valid YAML") from error
    return parsed


@main.command()
@click.argument("model")
@click.argument("method")
@click.option("--sparsity", type=float, help="Fraction of the weights to remove.")
@click.option("--pattern", metavar="N:M", help="Keep N of every M consecutive input weights.")
@click.option("--samples", default=64, show_default=True, help="Calibration windows.")
@click.option("--windows", default=32, show_default=True, help="Held-out windows to measure on.")
@click.option("--seed", default=0, show_default=True, help="Seed of the calibration windows.")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="For the method; repeatable."
)
@click.option("--out", type=click.Path(), help="Folder to save the pruned model in.")
@_model_options
def prune(
    model,
    method,
    sparsity,
    pattern,
    options,
    samples,
    windows,
    length,
    seed,
    text,
    device,
    dtype,
    out,
    as_json,
):
    """Prune MODEL with METHOD, measure it on held-out text and save it where --out says."""
    asked = {"sparsity": sparsity, "pattern": pattern}
    options = {key: value for key, value in asked.items() if value is not None} | _parse_options(
        options
    )
    import prunebook as pb

    from ..methods.registry import make_method
    from ..models.loading import check_target

    if out:
        check_target(out)  # before the work, not after it
    method_object = make_method(method, options)  # refuses bad options before the model is loaded
    loaded, tokenizer = pb.load_model(model, device=device, dtype=dtype)
    held_out = pb.evaluation_tokens(tokenizer, windows=windows, length=length, text=text)
    calibration = None
    if method_object.needs_calibration:
        calibration = pb.calibration_tokens(
            tokenizer, samples=samples, length=length, seed=seed, text=text
        )
    dense = pb.dense_baseline(loaded, held_out)
    report = pb.prune(loaded, method_object, calibration=calibration)
    measured = pb.measure(loaded, held_out, dense=dense).to_dict()
    saved = str(pb.save_model(loaded, tokenizer, out, measured=measured)) if out else None
    if as_json:
        result = {"model": model, "dense_perplexity": dense.perplexity, "report": report.to_dict()}
        _print_json({**result, "measured": measured, "saved": saved})
        return
    numbers = {name: getattr(report, name) for name in ("sparsity", "seconds", "peak_memory")}
    rows = [
        {"label": "dense", "perplexity": dense.perplexity},
        {"label": method, **numbers, **measured},
    ]
    click.echo(results_text(rows))
    if saved:
        click.echo(f"saved in {saved}")


@main.command("eval")
@click.argument("model")
@click.option("--windows", default=64, show_default=True, help="Windows to measure on.")
@_model_options
def evaluate(model, windows, length, text, device, dtype, as_json):
    """Measure MODEL's perplexity on held-out text."""
    import prunebook as pb

    loaded, tokenizer = pb.load_model(model, device=device, dtype=dtype)
    tokens = pb.evaluation_tokens(tokenizer, windows=windows, length=length, text=text)
    measured = pb.measure(loaded, tokens).to_dict()
    if as_json:
        _print_json({"model": model, **measured})
    else:
        click.echo(results_text([{"model": model, **measured}]))


@main.command()
@_json_option
def methods(as_json: bool):
    """List the methods and their options."""
    import prunebook as pb

    entries = pb.list_methods()
    if as_json:
        _print_json(entries)
        return
    rows = [
        {
            "method": entry["name"],
            "paper": entry["paper"],
            "data": "calibration" if entry["needs_calibration"] else "none",
            "options": " ".join(
                name if default is None else f"{name}={default}"
                for name, default in entry["options"].items()
            ),
        }
        for entry in entries
    ]
    click.echo(results_text(rows))


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--profile", default="quick", show_default=True, help="A profile of papers/profiles.yml."
)
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Notebooks at once; by default what fits, for quick."
)
@click.option("--force", is_flag=True, help="Run also what has not changed.")
@click.option(
    "--since", metavar="REV", help="Only pages that the changes since a git revision reach."
)
@click.option(
    "--only-changed",
    is_flag=True,
    help="Only pages that uncommitted changes reach, as --since HEAD.",
)
@click.option("--fail-fast", is_flag=True, help="Start no further page once one has failed.")
@click.option(
    "--record",
    is_flag=True,
    help="Keep what was measured under benchmarks/results/, for the boards.",
)
@click.pass_context
def run(ctx: click.Context, names, profile, jobs, force, since, only_changed, fail_fast, record):
    """Run papers and pages with code, as wanda or concepts/evaluation, or all; exit code 1 if one
    failed."""
    from ..runs.records import check_recordable, record_runs
    from ..runs.run import run_notebooks
    from ..site.published import read_published

    if since and only_changed:
        raise UserError(f"--since {since} and --only-changed say two things; give one of them")
    if record:
        check_recordable(profile)  # before the work, not after it
    root = catalog.find_root()
    summary = run_notebooks(
        root,
        list(names),
        profile=profile,
        jobs=jobs,
        force=force,
        since="HEAD" if only_changed else since,
        fail_fast=fail_fast,
    )
    if record:
        click.echo(record_runs(root, read_published(root), profile))
    if summary.failed:
        ctx.exit(1)


@main.command()
def build():
    """Build the site from the notebooks that have been run."""
    from ..site.build import build_site

    click.echo(build_site(catalog.find_root()))


@main.command()
@click.option(
    "--out",
    default="_build/exports",
    show_default=True,
    type=click.Path(),
    help="Folder for the files.",
)
def export(out: str):
    """Write catalog.json and its schema, references.bib, feed.xml, sitemap.xml and colab/, as the
    site has them."""
    from pathlib import Path

    from ..site.exports import export as export_book

    for path in export_book(catalog.find_root(), Path(out)):
        click.echo(path)


@main.command()
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
def serve(port: int):
    """Serve the built site on this machine."""
    from ..site.serve import serve as serve_site

    serve_site(catalog.find_root(), port)
