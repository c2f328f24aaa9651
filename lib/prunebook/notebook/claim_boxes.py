"""The box of a claim as HTML, and what it says of runs, models, gaps and estimates in words.

Needs no torch.
"""

import html
from collections.abc import Mapping, Sequence

from .tables import VERDICTS, protocol_line, verdict_html

# Who asked for a claim that is not the paper's own, as its box says.
_ASKED_BY = {
    "ours": "this book; no such statement of the paper was seen",
    "reviewers": "reviewers of the paper; no such statement of the paper was seen",
}


def claim_html(record: Mapping) -> str:
    """The box of a claim.

    Args:
        record: the record, as `Claim.to_dict` gives it. One whose verdict is taken from a recorded
            run has the text `recorded` as well, which says of which run; one that several runs
            judged has their verdicts as the list `verdicts`.
    """
    text = {name: html.escape(str(value)) for name, value in record.items() if value is not None}
    rows = [("Reported", f"{text['paper']} <span class='pb-source'>({text['source']})</span>")]
    if record.get("origin") in _ASKED_BY:
        rows.append(("Asked by", _ASKED_BY[record["origin"]]))
    if "ours" in text:
        heading = "Ours"
        if record["verdict"] == "not_judged":
            heading = "This quick run"
        rows.append((heading, text["ours"]))
    if record.get("gap") and "half_width" in record["gap"]:
        rows.append(("Difference", html.escape(_gap_words(record["gap"], record["verdict"]))))
    if record.get("bound"):
        rows.append(("Estimate", html.escape(_bound_words(record["bound"]))))
    if "undertrained" in text:
        rows.append(("Training", text["undertrained"]))
    if "reason" in text:
        rows.append(("Why not", text["reason"]))
    rows.append(("Verdict", verdict_html(record["verdict"])))
    verdicts = record.get("verdicts", [])
    models = model_words(verdicts)
    if models:
        rows.append(("Models", html.escape(models)))
    if len(verdicts) > 1:
        rows.append(("All runs", html.escape("; ".join(run_words(verdicts)))))
    body = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    notes = ""
    if "recorded" in text:
        notes += f'<p class="pb-protocol pb-recorded">{text["recorded"]}</p>'
    if record["protocol"]:
        notes += f'<p class="pb-protocol">{html.escape(protocol_line(record["protocol"]))}</p>'
    style = f"pb-claim pb-{record['verdict'].replace('_', '-')}"
    return (
        f'<section class="{style}" aria-label="Claim: {text["key"]}">'
        f'<p class="pb-statement">{text["statement"]}</p><dl>{body}</dl>{notes}</section>'
    )


def run_words(verdicts: Sequence[Mapping]) -> list[str]:
    """The verdict of each run on one claim, e.g. `full, NVIDIA H200, 64 windows: holds here`.

    Args:
        verdicts: what each run says: `verdict`, `profile`, `device`, `model`, `windows`, `version`.
    """
    several_models = len({each["model"] for each in verdicts}) > 1
    lines = []
    for each in verdicts:
        parts = [each["profile"], each["device"]]
        if several_models:
            parts.append(each["model"])
        if each["windows"]:
            parts.append(f"{each['windows']} windows")
        if each["version"] == 1:
            parts.append("earlier rule")
        where = ", ".join(filter(None, parts))
        lines.append(f"{where}: {VERDICTS[each['verdict']][1]}")
    return lines


def model_words(verdicts: Sequence[Mapping]) -> str:
    """On how many models a claim holds, e.g. `holds on 1 of 2 models`; empty for one model.

    Args:
        verdicts: what each run says, that with the most power first: `verdict` and `model`. Of the
            runs on one model the first counts.
    """
    of_models: dict[str, str] = {}
    for each in verdicts:
        if each["model"]:
            of_models.setdefault(each["model"], each["verdict"])
    if len(of_models) < 2:
        return ""
    holding = list(of_models.values()).count("holds")
    return f"holds on {holding} of {len(of_models)} models"


def few_draws(draws: int) -> str:
    """What is said of a gap of so few draws that others might show something else."""
    if draws == 1:
        return "this draw only"
    return f"{draws} draws only"


def _gap_words(gap: Mapping, verdict: str) -> str:
    """What a claim's box says of the difference that it rests on.

    Args:
        gap: the numbers, as `Gap.to_dict` gives them.
        verdict: a key of `VERDICTS`; a tie also tells which difference would have been seen.
    """
    sampled = [f"{gap['windows']} {gap.get('columns', 'windows')}"]
    if gap["draws"]:
        sampled.insert(0, f"{gap['draws']} draws")
    if gap["this_draw_only"]:
        sampled[0] = few_draws(gap["draws"])
    number = f"{gap['mean']:+.4f} ± {gap['half_width']:.4f} {gap['unit']}"
    freedom = f"{gap['degrees_of_freedom']:.1f} degrees of freedom"
    parts = [f"{number} (95 % interval; {', '.join(sampled)}; {freedom})"]
    if gap["margin"] is not None:
        parts.append(f"no difference is one below {gap['margin']:.4f}")
        if verdict == "tie":
            parts.append(_undecided(gap))
    # What could have been seen is known where the interval alone made the tie.
    elif verdict == "tie" and not gap["this_draw_only"]:
        parts.append(f"one of {gap['detectable']:.4f} would be seen eight times in ten")
    return "; ".join(parts)


def _undecided(gap: Mapping) -> str:
    """What a test for no difference leaves open where it decides nothing."""
    if abs(gap["mean"]) > gap["half_width"]:
        return "there is a difference, and whether it is below that is open"
    return "neither a difference nor its absence is shown"


def _bound_words(bound: Mapping) -> str:
    """What a claim's box says of the estimate that it rests on, as `Bound.to_dict` gives it."""
    parts = [
        f"{bound['estimate']:.3g} (95 % interval {bound['low']:.3g} to {bound['high']:.3g}; "
        f"{bound['samples']} samples)"
    ]
    for name in ("at_least", "at_most"):
        if bound[name] is not None:
            parts.append(f"claimed: {name.replace('_', ' ')} {bound[name]:.3g}")
    return "; ".join(parts)
