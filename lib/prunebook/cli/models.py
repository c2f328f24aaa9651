"""The commands on models: `methods`, `prune`, `eval`."""

import functools
from dataclasses import asdict, dataclass
from typing import Any

import click
import yaml

from ..errors import UserError
from ..notebook.tables import results_text
from .options import json_option, print_json


def model_options(command):
    """Add the options of every command that loads a model and reads text."""
    options = (
        click.option("--length", default=512, show_default=True, help="Tokens a window."),
        click.option(
            "--text", metavar="NAME_OR_FILE", help="Text instead of the embedded articles."
        ),
        click.option("--device", default="auto", show_default=True),
        click.option("--dtype", default="auto", show_default=True),
        json_option,
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


@click.command()
@json_option
def methods(as_json: bool):
    """List the methods and their options."""
    import prunebook as pb

    entries = pb.list_methods()
    if as_json:
        print_json(entries)
        return
    rows = [
        {
            "method": entry["name"],
            "paper": entry["paper"],
            "data": entry["text"] or "none",
            "sparsity of": entry["sparsity_of"],
            "options": _options_text(entry["options"]),
        }
        for entry in entries
    ]
    click.echo(results_text(rows))


def _options_text(defaults: dict[str, Any]) -> str:
    """The options of a method as `sparsity pattern scope=row`; a default of None is left out."""
    texts = []
    for name, default in defaults.items():
        if default is None:
            texts.append(name)
        else:
            texts.append(f"{name}={default}")
    return " ".join(texts)


@dataclass(frozen=True)
class _Pruned:
    """What `prune` has done.

    Attributes:
        model: the name that the user gave.
        dense_perplexity: perplexity before.
        report: the report of `pb.prune`.
        measured: quality after.
        saved: folder of the pruned model, None where it was not saved.
    """

    model: str
    dense_perplexity: float
    report: dict[str, Any]
    measured: dict[str, Any]
    saved: str | None


@click.command()
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
@model_options
def prune(
    model: str,
    method: str,
    sparsity: float | None,
    pattern: str | None,
    options: tuple[str, ...],
    as_json: bool,
    **settings: Any,
):
    """Prune MODEL with METHOD, measure it on held-out text and save it where --out says."""
    method_options = {}
    if sparsity is not None:
        method_options["sparsity"] = sparsity
    if pattern is not None:
        method_options["pattern"] = pattern
    result = _pruned(model, method, method_options | _parse_options(options), **settings)
    if as_json:
        print_json(asdict(result))
        return
    numbers = {name: result.report[name] for name in ("sparsity", "seconds", "peak_memory")}
    rows = [
        {"label": "dense", "perplexity": result.dense_perplexity},
        {"label": method, **numbers, **result.measured},
    ]
    click.echo(results_text(rows))
    if result.saved:
        click.echo(f"saved in {result.saved}")


def _pruned(
    model: str,
    method: str,
    options: dict[str, Any],
    *,
    samples: int,
    windows: int,
    length: int,
    seed: int,
    text: str | None,
    device: str,
    dtype: str,
    out: str | None,
) -> _Pruned:
    """Load the model, prune it with a method of these options, measure it, and save it in `out`."""
    import prunebook as pb

    from ..methods.registry import make_method
    from ..models.loading import check_target

    # A bad folder and bad options are refused before the model is loaded.
    if out:
        check_target(out)
    method_object = make_method(method, options)
    loaded, tokenizer = pb.load_model(model, device=device, dtype=dtype)
    held_out = pb.evaluation_tokens(tokenizer, windows=windows, length=length, text=text)
    # The text that the method reads or is trained on, under the name of its argument.
    texts = {}
    text_argument = method_object.text_argument()
    if text_argument is not None:
        texts[text_argument] = pb.calibration_tokens(
            tokenizer, samples=samples, length=length, seed=seed, text=text
        )
    dense = pb.dense_baseline(loaded, held_out)
    report = pb.prune(loaded, method_object, **texts)
    measured = pb.measure(loaded, held_out, dense=dense).to_dict()
    saved = None
    if out:
        saved = str(pb.save_model(loaded, tokenizer, out, measured=measured))
    return _Pruned(model, dense.perplexity, report.to_dict(), measured, saved)


def _parse_options(options: tuple[str, ...]) -> dict[str, Any]:
    """The options of a method from `key=value` texts.

    A value is read as YAML, so that numbers and true or false do not stay texts.

    Raises:
        UserError: a text of another form, or an option that the command has itself.
    """
    parsed = {}
    for option in options:
        key, sign, value = option.partition("=")
        if not sign or not key.isidentifier():
            raise UserError(f"--option {option!r} must be key=value, e.g. --option damping=0.05")
        if key in ("sparsity", "pattern"):
            raise UserError(f"--option {option!r} has an option of its own: --{key} {value}")
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--option {option!r} has a value that is no valid YAML") from error
    return parsed


@click.command("eval")
@click.argument("model")
@click.option("--windows", default=64, show_default=True, help="Windows to measure on.")
@model_options
def evaluate(
    model: str,
    windows: int,
    length: int,
    text: str | None,
    device: str,
    dtype: str,
    as_json: bool,
):
    """Measure MODEL's perplexity on held-out text."""
    import prunebook as pb

    loaded, tokenizer = pb.load_model(model, device=device, dtype=dtype)
    tokens = pb.evaluation_tokens(tokenizer, windows=windows, length=length, text=text)
    measured = pb.measure(loaded, tokens).to_dict()
    if as_json:
        print_json({"model": model, **measured})
    else:
        click.echo(results_text([{"model": model, **measured}]))
