"""What hosts do with the repository: workflows, issue forms, commit hooks and Binder agree with the
code."""

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import yaml

from prunebook.catalog import VOCABULARY, Record
from prunebook.catalog.schema import Venue
from prunebook.cli.main import main
from prunebook.files import cache_folder
from prunebook.runs.executed import executed_folder
from prunebook.site.buttons import COLAB_BRANCH

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(
    path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"
)
HOOKS = ROOT / ".pre-commit-config.yaml"
BINDER = ROOT / ".binder"

ACTION = r"(?P<action>[\w-]+/[\w-]+)[\w/-]*"
PINNED = re.compile(rf"uses: {ACTION}@(?P<commit>[0-9a-f]{{40}}) # v\d+\.\d+\.\d+$")
LONGEST = 360  # minutes, after which GitHub ends a job
READ_ONLY = {"contents": "read"}
WRITES = {  # everything that a job may change
    "publish.yml deploy": {"pages": "write", "id-token": "write"},
    "publish.yml colab": {"contents": "write"},
    "links.yml report": {"issues": "write"},
}


def load(path):
    """The file's content with every scalar as text, `on` included."""
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def minutes(content):
    """The time limits of a job or a step: one, or those that its expression chooses from."""
    return [int(number) for number in re.findall(r"\d+", content.get("timeout-minutes", ""))]


def cached(workflow):
    """The steps that restore or save a cache."""
    found = []
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/cache") or "cache" in step.get("with", {}):
            found.append(step)
    return found


def faults(text, name):
    """What a workflow must not do, a line each."""
    workflow = yaml.load(text, yaml.BaseLoader)
    found = []
    found += [
        f"trigger {event}"
        for event in workflow["on"]
        if event in ("pull_request_target", "workflow_run")
    ]
    if workflow.get("permissions") != READ_ONLY:
        found.append("permissions are not read-only")
    for job, content in workflow["jobs"].items():
        if content.get("permissions", READ_ONLY) not in (READ_ONLY, WRITES.get(f"{name} {job}")):
            found.append(f"permissions of {job}")
        if "uses" not in content and not 0 < max(minutes(content), default=0) <= LONGEST:
            found.append(f"no timeout for {job}")
    for step in steps(workflow):
        if "${{" in step.get("run", ""):
            found.append("expression in run")
        keeps = step.get("with", {}).get("persist-credentials") != "false"
        if step.get("uses", "").startswith("actions/checkout@") and keeps:
            found.append("checkout keeps the token")
    for line in text.splitlines():
        used = re.search(r"\buses: (?!\./)\S.*", line)
        if used and not PINNED.fullmatch(used[0]):
            found.append(f"not pinned: {used[0]}")
    if re.search(r"\bsecrets\b", re.sub("#.*", "", text)):
        found.append("secrets")
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_safe(path):
    assert faults(path.read_text(encoding="utf-8"), path.name) == []


def test_an_unsafe_workflow_is_found():
    text = """\
on: {pull_request_target: {}}
permissions: write-all
jobs:
  greet:
    permissions: {issues: write}
    steps:
      - uses: actions/checkout@v7
      - uses: actions/cache/restore@v6
      - run: echo "${{ github.event.pull_request.title }}"
        env: {TOKEN: "${{ secrets.TOKEN }}"}
"""
    assert faults(text, "greet.yml") == [
        "trigger pull_request_target",
        "permissions are not read-only",
        "permissions of greet",
        "no timeout for greet",
        "checkout keeps the token",
        "expression in run",
        "not pinned: uses: actions/checkout@v7",
        "not pinned: uses: actions/cache/restore@v6",
        "secrets",
    ]


def test_an_action_has_one_version():
    found = {
        (used["action"], used["commit"])
        for path in WORKFLOWS
        for used in map(PINNED.search, lines(path))
        if used
    }
    assert len(found) == len({action for action, _ in found}) > 0


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def check_job():
    """The one job of check.yml."""
    (job,) = load(ROOT / ".github/workflows/check.yml")["jobs"].values()
    return job


def cache_steps(verb):
    """The steps of check.yml that restore or save the executed pages and the models."""
    action = f"actions/cache/{verb}@"
    pages, models = (step for step in check_job()["steps"] if action in step.get("uses", ""))
    return pages, models


def test_pull_requests_are_checked_with_the_history_and_all_commands():
    workflow = load(ROOT / ".github/workflows/check.yml")
    assert set(workflow["on"]) == {"pull_request", "workflow_dispatch", "workflow_call"}
    checkout, *rest = steps(workflow)
    assert checkout["with"]["fetch-depth"] == "0"  # else pages have no day of their last change
    assert [step["run"] for step in rest if "run" in step] == [
        "make lint",
        "make book",
        "make test",
    ]
    assert workflow["concurrency"]["cancel-in-progress"] == "true"
    assert workflow["concurrency"]["group"].endswith("-${{ inputs.profile }}")  # two for main


def test_pull_requests_run_the_quick_profile():
    inputs = load(ROOT / ".github/workflows/check.yml")["on"]["workflow_call"]["inputs"]
    assert inputs["profile"]["default"] == "quick"
    assert check_job()["env"]["PROFILE"] == "${{ inputs.profile || 'quick' }}"
    assert any(line.startswith("PROFILE ?= ") for line in lines(ROOT / "Makefile"))


def test_a_run_that_reaches_its_limit_has_time_left_to_save():
    (book,) = [step for step in check_job()["steps"] if step.get("run") == "make book"]
    for job_limit, book_limit in zip(minutes(check_job()), minutes(book), strict=True):
        assert book_limit + 20 <= job_limit


def test_executed_pages_are_kept_also_of_a_run_that_fails():
    restored, _ = cache_steps("restore")
    saved, _ = cache_steps("save")
    executed = executed_folder(ROOT, "${{ env.PROFILE }}").relative_to(ROOT).as_posix()
    paths = [executed, "_build/cache/*", "!_build/cache/models"]
    assert restored["with"]["path"].splitlines() == paths
    assert saved["with"]["path"] == restored["with"]["path"]
    assert saved["if"] == "always()"
    # A cache cannot be written twice, so each attempt of each run has a key of its own.
    assert saved["with"]["key"] == "-".join(
        [
            f"${{{{ steps.{restored['id']}.outputs.cache-primary-key }}}}",
            "${{ github.run_id }}",
            "${{ github.run_attempt }}",
        ]
    )
    # Any older execution of the profile is better than none: what it does not serve is run again.
    assert restored["with"]["restore-keys"] == "executed-${{ env.PROFILE }}-"
    assert restored["with"]["key"].startswith("executed-${{ env.PROFILE }}-${{ hashFiles(")


def test_converted_models_are_kept_once_they_are_complete(monkeypatch):
    _, restored = cache_steps("restore")
    _, saved = cache_steps("save")
    place = check_job()["env"]["PRUNEBOOK_CACHE"].replace("${{ github.workspace }}", str(ROOT))
    monkeypatch.setenv("PRUNEBOOK_CACHE", place)
    assert cache_folder() / "models" == ROOT / restored["with"]["path"]
    assert saved["with"]["path"] == restored["with"]["path"]
    assert saved["if"] == f"steps.{restored['id']}.outputs.cache-hit != 'true'"
    assert saved["with"]["key"] == f"${{{{ steps.{restored['id']}.outputs.cache-primary-key }}}}"


def hashed(step):
    """The patterns of the files whose content the cache's key holds."""
    return re.findall(r"'([^']+)'", re.search(r"hashFiles\((.*?)\)", step["with"]["key"])[1])


def test_the_keys_of_caches_follow_the_sources():
    pages, models = cache_steps("restore")
    packages = {"requirements/**", "pyproject.toml"}
    assert packages | {"lib/**", "papers/**", "concepts/**"} <= set(hashed(pages))
    assert packages <= set(hashed(models))
    for pattern in hashed(pages) + hashed(models):
        assert any(ROOT.glob(pattern)), pattern


def test_the_weekly_build_has_no_cache_and_every_python():
    workflow = load(ROOT / ".github/workflows/weekly.yml")
    assert [entry["cron"].split()[2:] for entry in workflow["on"]["schedule"]] == [["*", "*", "6"]]
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make book", "make test"]
    assert cached(workflow) == []
    assert set(job["env"]) == {"PIP_EXTRA_INDEX_URL"}
    assert len(cached(load(ROOT / ".github/workflows/check.yml"))) == 5  # so they would be found
    strategy = job["strategy"]
    assert strategy == {"fail-fast": "false", "matrix": {"python": ["3.11", "3.12", "3.13"]}}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={strategy['matrix']['python'][0]}"


def test_publishing_is_from_main_only_and_after_the_check():
    workflow = load(ROOT / ".github/workflows/publish.yml")
    assert workflow["on"]["push"] == {"branches": ["main"]}
    jobs = workflow["jobs"]
    assert jobs["check"]["if"] == "github.ref == 'refs/heads/main'"
    assert jobs["check"]["uses"] == "./.github/workflows/check.yml"
    assert [job["needs"] for name, job in jobs.items() if name != "check"] == ["check", "check"]
    push = jobs["colab"]["steps"][-1]
    assert push["working-directory"] == f"site/{COLAB_BRANCH}"
    assert push["run"].rstrip().endswith(f"HEAD:refs/heads/{COLAB_BRANCH}")


def test_what_is_published_was_run_with_the_profile_book():
    jobs = load(ROOT / ".github/workflows/publish.yml")["jobs"]
    assert jobs["check"]["strategy"]["matrix"] == {"profile": ["quick", "book"]}
    assert jobs["check"]["with"] == {"profile": "${{ matrix.profile }}"}
    names = [
        step["with"]["name"]
        for step in check_job()["steps"]
        if step.get("uses", "").startswith("actions/upload-artifact@")
    ]
    assert names == ["site-${{ env.PROFILE }}"]
    for name in ("deploy", "colab"):
        download = jobs[name]["steps"][0]
        assert download["uses"].startswith("actions/download-artifact@")
        assert download["with"] == {"name": "site-book", "path": "site"}


def test_links_are_followed_weekly_and_a_rate_limit_is_no_fault():
    workflow = load(ROOT / ".github/workflows/links.yml")
    assert [entry["cron"].split()[2:] for entry in workflow["on"]["schedule"]] == [["*", "*", "1"]]
    (lychee,) = [
        step for step in steps(workflow) if step.get("uses", "").startswith("lycheeverse/")
    ]
    assert "429" in re.search(r"--accept '([^']*)'", lychee["with"]["args"])[1].split(",")


def mentioned():
    """The text of everything that tells a person or a machine to run something, by file name."""
    files = [*FORMS, ROOT / ".github/pull_request_template.md", HOOKS]
    told = {
        path.name: "\n".join(re.findall(r"`([^`]+)`", path.read_text(encoding="utf-8")))
        for path in files
    }
    told[HOOKS.name] = "\n".join(
        hook["entry"] for repo in load(HOOKS)["repos"] for hook in repo["hooks"] if "entry" in hook
    )
    return told | {
        path.name: "\n".join(step.get("run", "") for step in steps(load(path)))
        for path in WORKFLOWS
    }


def test_what_is_run_exists():
    (targets,) = re.findall(
        r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    for name, text in mentioned().items():
        assert set(re.findall(r"\bmake ([a-z]+)", text)) <= set(targets.split()), name
        for command, flag in re.findall(r"\bprunebook(?: ([a-z]+))?(?: (--[a-z]+))?", text):
            assert not command or command in main.commands, f"{name}: prunebook {command}"
            known = main.commands[command] if command else main
            assert not flag or flag in [name for option in known.params for name in option.opts], (
                f"{name}: {flag}"
            )
    assert "prunebook check" in mentioned()[HOOKS.name]


def run(step, folder, **environment):
    """Run the step's script in `folder` as a runner does, with a `gh` that writes down what it is
    asked to do."""
    (folder / "gh").write_text(
        '#!/bin/sh\necho "$@" >>"$GH_LOG"\n[ "$1 $2" != "issue list" ] || echo "$FOUND"\n'
    )
    (folder / "gh").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    work = folder / step.get("working-directory", ".")
    log = folder / "gh.log"
    variables = {**os.environ, **environment, "PATH": path, "GH_LOG": str(log), "HOME": str(folder)}
    subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=work, env=variables, check=True, capture_output=True
    )
    return log.read_text(encoding="utf-8").splitlines()


def test_the_branch_for_colab_holds_the_notebooks_and_no_history(tmp_path):
    push = load(ROOT / ".github/workflows/publish.yml")["jobs"]["colab"]["steps"][-1]
    remote = tmp_path / "a" / "b.git"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    for name in ("old", "new"):
        copies = tmp_path / name / "site" / COLAB_BRANCH
        copies.mkdir(parents=True)
        (copies / f"{name}.ipynb").write_text("{}")
        (copies / "page.html").write_text("no notebook")
        place = {
            "GITHUB_SERVER_URL": f"file://{tmp_path}",
            "GITHUB_REPOSITORY": "a/b",
            "GITHUB_SHA": "f00",
        }
        assert run(push, tmp_path / name, **place) == ["auth setup-git"]
    git = ["git", "-C", str(remote)]
    files, commits = (
        subprocess.run(
            [*git, *command, COLAB_BRANCH], check=True, capture_output=True, text=True
        ).stdout.split()
        for command in (["ls-tree", "--name-only"], ["rev-list"])
    )
    assert files == ["new.ipynb"]
    assert len(commits) == 1


@pytest.mark.parametrize(
    ("exit_code", "found", "expected"),
    [
        ("0", "", []),
        ("0", "7", ["issue close 7 --comment Every link works again."]),
        ("2", "7", ["issue edit 7 --body-file body.md"]),
        (
            "2",
            "",
            [
                "label create broken links --force --color d93f0b --description Found by the "
                "weekly check of links",
                "issue create --title Broken links --label broken links --body-file body.md",
            ],
        ),
    ],
)
def test_one_issue_holds_the_broken_links(tmp_path, exit_code, found, expected):
    report = load(ROOT / ".github/workflows/links.yml")["jobs"]["report"]["steps"][-1]
    (tmp_path / "out.md").write_text("x" * 70000)
    asked, *done = run(
        report, tmp_path, EXIT_CODE=exit_code, FOUND=found, LABEL=report["env"]["LABEL"]
    )
    assert asked.startswith("issue list --label broken links --state open --limit 1")
    assert done == expected
    if exit_code == "2":
        assert (tmp_path / "body.md").stat().st_size == 60000


def fields(name):
    """id -> element, of the form's elements that are filled in."""
    form = load(ROOT / ".github/ISSUE_TEMPLATE" / name)
    return {element["id"]: element for element in form["body"] if element["type"] != "markdown"}


def options(element):
    assert element["type"] == "dropdown"
    return element["attributes"]["options"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_one(path):
    form = load(path)
    assert (
        {"name", "description", "body"}
        <= set(form)
        <= {"name", "description", "title", "labels", "body"}
    )
    elements = [element for element in form["body"] if element["type"] != "markdown"]
    assert {element["type"] for element in elements} <= {"input", "textarea", "dropdown"}
    for values in zip(
        *[(element["id"], element["attributes"]["label"]) for element in elements], strict=True
    ):
        assert len(set(values)) == len(values)


def test_a_suggested_paper_has_the_fields_and_tags_of_a_record():
    form = fields("new-paper.yml")
    assert {name: tuple(options(form[name])) for name in VOCABULARY} == VOCABULARY
    assert all(form[name]["attributes"]["multiple"] == "true" for name in VOCABULARY)
    assert tuple(options(form["kind"])) == get_args(Venue.model_fields["kind"].annotation)
    assert set(form) - set(VOCABULARY) - {"kind"} <= set(Record.model_fields)


def test_a_correction_names_a_field_of_the_record():
    ours = {"slug", "tags", "added", "corrections", "method", "implementation"}
    expected = [*Record.model_fields, *(f"tags.{name}" for name in VOCABULARY)]
    assert sorted(options(fields("correction.yml")["field"])) == sorted(set(expected) - ours)


def test_a_claim_names_a_profile():
    profiles = yaml.safe_load((ROOT / "papers" / "profiles.yml").read_text(encoding="utf-8"))
    assert options(fields("claim.yml")["profile"])[:-1] == list(profiles)


def test_hooks_are_pinned_and_have_the_version_of_ruff_that_make_installs():
    ruff = []
    for repo in load(HOOKS)["repos"]:
        assert repo["repo"] == "local" or re.fullmatch("[0-9a-f]{40}", repo["rev"]), repo["repo"]
        ruff += [pin for hook in repo["hooks"] for pin in hook.get("additional_dependencies", [])]
    constraints = lines(ROOT / "requirements/constraints.txt")
    (pinned,) = [line for line in constraints if line.startswith("ruff==")]
    assert ruff == [pinned, pinned]  # the linter and the formatter


def test_binder_installs_what_make_installs():
    runtime = (BINDER / "runtime.txt").read_text(encoding="utf-8").strip()
    pythons = {
        step["with"]["python-version"]
        for path in WORKFLOWS
        for step in steps(load(path))
        if "python-version" in step.get("with", {}) and path.name != "weekly.yml"
    }
    assert {f"python-{version}" for version in pythons} == {runtime}
    required = lines(BINDER / "requirements.txt")
    (constraints,) = [line.split()[1] for line in required if line.startswith("-c ")]
    assert (BINDER / constraints).resolve() == ROOT / "requirements/constraints.txt"
    assert "." in required
    assert "--no-deps -r requirements/embedded.txt" in (BINDER / "postBuild").read_text(
        encoding="utf-8"
    )
    assert (ROOT / "requirements/embedded.txt").is_file()
    assert os.stat(BINDER / "postBuild").st_mode & stat.S_IXUSR
