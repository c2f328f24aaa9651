"""Where the time of a page goes: every page is run once, and its wall time is split by its use.

    python -m benchmarks.pages [NAME ...] [--profile quick] [--out FILE] [--force]

The code cells of a page run in a process of their own, under the parameters of the profile, in
IPython with the inline figures of a kernel. Wrappers around the library's functions read a clock.
The categories are exclusive: an inner call takes its time off the call around it, and a page's
categories add up to its wall time. `functions` has the same seconds by function, `calls` how often
each was called. Papermill and the kernel of `prunebook run` have no part in it.

Trials and sweeps are made anew, as if no other page had left any. A dense baseline that an earlier
run left in the cache is only read: the page's functions then lack `baseline._run_dense`. Work of a
GPU counts where the page waits for it.

A page that the record holds under the same rerun key is not measured again. The record is written
after every page, so that a run can be broken off and resumed.
"""

import argparse
import builtins
import contextlib
import copy
import datetime
import functools
import importlib
import inspect
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType

from prunebook.errors import UserError

# What only the parent needs is imported in its functions: a child starts with IPython alone.

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "pages-cpu.json"
PAGE = "page"  # the label of what no wrapper covers
SHORTEST = 0.02  # seconds in a page below which a function is left out of the record
CATEGORIES = {
    "process": "start of the process with IPython, and its end",
    "imports": "imports, lazy ones included",
    "loading": "models and tokenizers that are read or made",
    "text": "parsing of the embedded text, once a process",
    "calibration": "calibration tokens",
    "held-out": "held-out and training tokens",
    "dense": "the dense baseline",
    "copies": "deep copies of models",
    "pruning": "methods, and their parts where the page itself calls them",
    "footprint": "footprints, counts of zeros and other timing",
    "measuring": "perplexity and other quality",
    "training": "finetuning, distillation, learned masks and rates, tokenizers",
    "figures": "making and drawing of figures",
    "other": "all else",
}
# category -> `module:function`, where `*` stands for all public functions that the module defines.
# The time of a step is taken off whatever is around it.
STEPS = {
    "loading": (
        "prunebook.models.loading:load_model",
        "prunebook.models.tiny:small_llama",
        "transformers.modeling_utils:PreTrainedModel.from_pretrained",
        "transformers.tokenization_utils_base:PreTrainedTokenizerBase.from_pretrained",
    ),
    "text": ("prunebook.data.corpora:embedded_articles",),
    "calibration": ("prunebook.data.windows:calibration_tokens",),
    "held-out": (
        "prunebook.data.windows:evaluation_tokens",
        "prunebook.data.windows:training_tokens",
        "prunebook.data.tasks:article_task",
        "prunebook.methods.sheared_llama.domains:domain_tokens",
        "prunebook.methods.compresso.instruction_data:instruction_windows",
        "prunebook.data.windows:pretraining_tokens",
    ),
    "dense": ("prunebook.measure.baseline:dense_baseline", "prunebook.measure.baseline:_run_dense"),
    "pruning": ("prunebook.methods.prune:prune",),
    "footprint": (
        "prunebook.measure.footprint:*",
        "prunebook.experiments.caches:time_steps",
        "prunebook.measure.zeros:count_zeros",
    ),
    "measuring": (
        "prunebook.measure.quality:measure_quality",
        "prunebook.measure.quality:perplexity",
        "prunebook.measure.tasks:classify",
        "prunebook.caches.quality:*",
        "prunebook.caches.trace:*",
        "prunebook.methods.sheared_llama.data_mixture:domain_losses",
        "prunebook.methods.compresso.response_loss:response_nll",
    ),
    "training": (
        "prunebook.recovery.training:*",
        "prunebook.recovery.finetune:*",
        "prunebook.recovery.distillation:*",
        "prunebook.recovery.learned_masks:*",
        "prunebook.methods.sheared_llama.data_mixture:train_mixture",
        "prunebook.methods.besa.block_training:train_rates",
        "prunebook.models.tiny:train_tokenizer",
    ),
    "figures": (
        "matplotlib.backend_bases:FigureCanvasBase.print_figure",
        "matplotlib.figure:Figure.draw",
        "matplotlib.pyplot:figure",
        "matplotlib.pyplot:subplots",
        "matplotlib.pyplot:close",
        "matplotlib_inline.backend_inline:show",
    ),
    "other": (
        "prunebook.experiments.compare:compare",
        "prunebook.experiments.compare:sweep",
        "prunebook.experiments.caches:compare_caches",
        "prunebook.models.loading:save_model",
    ),
}
# category -> modules and packages whose public functions and methods count where nothing else that
# is listed here runs: what a page calls by itself. The longest name decides.
PARTS = {
    "held-out": ("prunebook.data",),
    "pruning": (
        "prunebook.sparsity.allocation",
        "prunebook.passes.sequential",
        "prunebook.criteria",
        "prunebook.methods.ria.fold_permutation",
        "prunebook.passes.backward",
        "prunebook.sparsity.hard_concrete",
        "prunebook.recovery.learned_masks",
        "prunebook.methods.besa.learned_sparsity",
        "prunebook.methods",
        "prunebook.sparsity.patterns",
        "prunebook.methods.ria.permutation",
        "prunebook.methods.k_prune.refit",
        "prunebook.methods.compresso.size_budget",
        "prunebook.sparsity.structured_masks",
        "prunebook.passes.masked",
        "prunebook.models.sizes",
        "prunebook.models.channels",
        "prunebook.models.anatomy",
        "prunebook.methods.dsnot.mask_swaps",
        "prunebook.models.surgery",
    ),
    "figures": ("prunebook.site.drawings",),
    "other": (
        "prunebook.models.ternary",
        "prunebook.models.ternary_linears",
        "prunebook.site.pages.kernels",
        "prunebook.notebook",
        "prunebook.models.packed",
        "prunebook.experiments.compare",
        "prunebook.methods.sparse_scaling_laws.law_fit",
        "prunebook.methods.sparse_scaling_laws.optimal_sparsity",
        "prunebook.methods.sparse_scaling_laws.scaling_law",
    ),
}


def listed(table: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """`(category, name)` for all names of `STEPS` or `PARTS`."""
    return [(category, name) for category, names in table.items() for name in names]


def public_functions(owner: ModuleType | type, module: str) -> list[str]:
    """The names of functions that a module, or a class in it, defines for others; no `forward`."""
    return [
        name
        for name, value in vars(owner).items()
        if isinstance(value, FunctionType) and value.__module__ == module
        if not name.startswith("_") and name != "forward"
    ]


def check_tables() -> None:
    """Refuse to measure where the library lacks a module or function that is listed above.

    Raises:
        UserError: the first that is missing.
    """
    library = Path(inspect.getfile(UserError)).parents[1]
    for _, name in [*listed(STEPS), *listed(PARTS)]:
        module, _, path = name.partition(":")
        if module.partition(".")[0] != "prunebook":
            continue
        file = library / module.replace(".", "/")
        source = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        text = source.read_text(encoding="utf-8") if source.exists() else ""
        defined = set(re.findall(r"^ *(?:def|class) (\w+)", text, re.MULTILINE))
        if not source.exists() or not set(path.split(".")) <= defined | {"", "*"}:
            raise UserError(f"the library has no {name}; mend the tables of {Path(__file__).name}")


class Clock:
    """Charges the time of the thread that makes it to a stack of labels: the last one gets it."""

    def __init__(self):
        self.seconds = Counter()
        self.calls = Counter()
        self.category = {PAGE: "other"}
        self._stack = [PAGE]
        self._since = time.perf_counter()
        self._thread = threading.get_ident()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def enter(self, label: str, outermost: bool = False) -> bool:
        """Let a label of `category` run.

        Args:
            label: what gets the time from now on.
            outermost: whether it is left out where another label than the page's runs.

        Returns:
            Whether it runs now, and must be left. In another thread it does not.
        """
        if threading.get_ident() != self._thread or (outermost and len(self._stack) > 1):
            return False
        self._charge()
        self._stack.append(label)
        self.calls[label] += 1
        return True

    def leave(self) -> None:
        """Go back to the label around."""
        self._charge()
        self._stack.pop()

    def categories(self) -> Counter:
        """Seconds by category until now."""
        self._charge()
        sums = Counter()
        for label, seconds in self.seconds.items():
            sums[self.category[label]] += seconds
        return sums

    def functions(self) -> dict[str, dict[str, float]]:
        """Category -> label -> seconds, the longest first."""
        found = {category: {} for category in CATEGORIES}
        for label, seconds in self.seconds.most_common():
            if seconds >= SHORTEST:
                found[self.category[label]][label] = round(seconds, 3)
        return {category: labels for category, labels in found.items() if labels}


class Instruments:
    """Wrappers that run a clock, put around functions as soon as their modules are imported."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self.peaks = []  # peaks of resident memory that the library was about to reset, in bytes
        self._imports = 0  # import statements that are running, one inside the other
        self._known = set(sys.modules)
        self._count = len(sys.modules)
        self._wrappers = {}  # id of a function -> the function, which stays alive, and its wrapper

    def attach(self) -> None:
        """Time imports and `deepcopy` from now on, and wrap what is imported."""
        import_statement = builtins.__import__
        import_module = importlib.import_module

        def timed_statement(name, globals=None, locals=None, fromlist=(), level=0):
            module = globals["__package__"] if level else name
            return self._import(module, import_statement, name, globals, locals, fromlist, level)

        @functools.wraps(import_module)
        def timed_import_module(name, package=None):
            module = package if name.startswith(".") else name
            return self._import(module, import_module, name, package)

        builtins.__import__ = timed_statement
        importlib.import_module = timed_import_module
        copy.deepcopy = self._timed_copy(copy.deepcopy)

    def _import(self, module: str, function: Callable, *arguments):
        label = f"import {module.partition('.')[0]}"
        self.clock.category[label] = "imports"
        if not self.clock.enter(label):
            return function(*arguments)
        self._imports += 1
        try:
            return function(*arguments)
        finally:
            self._imports -= 1
            if not self._imports:  # only then are all new modules complete
                self._wrap_new_modules()
            self.clock.leave()

    def _timed_copy(self, deepcopy: Callable) -> Callable:
        timed = self._timed(deepcopy, "copy.deepcopy", "copies")

        @functools.wraps(deepcopy)
        def copied(x, *memo, **named):
            # A call with a memo is part of another copy, or shares the tensors.
            model = getattr(sys.modules.get("torch.nn"), "Module", ())
            if memo or named or not isinstance(x, model):
                return deepcopy(x, *memo, **named)
            return timed(x)

        return copied

    def _timed(self, function: Callable, label: str, category: str, outermost=False) -> Callable:
        """The function, with its calls timed; of a generator, the steps."""
        clock = self.clock
        clock.category[label] = category

        @functools.wraps(function)
        def timed(*arguments, **named):
            entered = clock.enter(label, outermost)
            try:
                return function(*arguments, **named)
            finally:
                if entered:
                    clock.leave()

        @functools.wraps(function)
        def timed_generator(*arguments, **named):
            with contextlib.closing(function(*arguments, **named)) as items:
                while True:
                    entered = clock.enter(label, outermost)
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                    finally:
                        if entered:
                            clock.leave()
                    yield item

        return timed_generator if inspect.isgeneratorfunction(function) else timed

    def _wrap_new_modules(self) -> None:
        if len(sys.modules) == self._count:
            return
        new = {name: sys.modules[name] for name in sys.modules.keys() - self._known}
        self._known |= new.keys()
        self._count = len(sys.modules)
        for name, module in new.items():
            self._wrap_steps(name, module)
            self._wrap_parts(name, module)
        # Modules hold functions that they import from each other: the wrappers take their place.
        for name, module in new.items():
            if name.partition(".")[0] != "prunebook":
                continue
            for attribute, value in list(vars(module).items()):
                original, wrapper = self._wrappers.get(id(value), (None, None))
                if wrapper is not None and original is value:
                    setattr(module, attribute, wrapper)

    def _wrap_steps(self, name: str, module: ModuleType) -> None:
        for category, step in listed(STEPS):
            of, _, path = step.partition(":")
            if of != name:
                continue
            *outer, attribute = path.split(".")
            owner = getattr(module, outer[0]) if outer else module
            for each in public_functions(module, name) if attribute == "*" else [attribute]:
                self._wrap(owner, each, name, category)
        if name == "prunebook.measure.memory":
            self._replace(module, "peak_memory", self._noting_peak(module.peak_memory))

    def _wrap_parts(self, name: str, module: ModuleType) -> None:
        around = [x for x in listed(PARTS) if f"{name}.".startswith(f"{x[1]}.")]
        if not around:
            return
        category, _ = max(around, key=lambda x: len(x[1]))
        own = [x for x in vars(module).values() if getattr(x, "__module__", None) == name]
        for owner in [module, *(x for x in own if isinstance(x, type))]:
            for attribute in public_functions(owner, name):
                self._wrap(owner, attribute, name, category, outermost=True)

    def _wrap(self, owner, attribute: str, module: str, category: str, outermost=False) -> None:
        """Time a function of a module or a method of a class, unless it is wrapped already."""
        original = inspect.getattr_static(owner, attribute)
        if any(original is wrapper for _, wrapper in self._wrappers.values()):
            return
        path = f"{owner.__name__}.{attribute}" if isinstance(owner, type) else attribute
        label = f"{module.removeprefix('prunebook.')}.{path}"
        if isinstance(original, classmethod):
            timed = classmethod(self._timed(original.__func__, label, category, outermost))
        else:
            timed = self._timed(original, label, category, outermost)
        self._replace(owner, attribute, timed)

    def _replace(self, owner, attribute: str, wrapper) -> None:
        original = inspect.getattr_static(owner, attribute)
        setattr(owner, attribute, wrapper)
        self._wrappers[id(original)] = (original, wrapper)

    def _noting_peak(self, peak_memory: Callable) -> Callable:
        @functools.wraps(peak_memory)
        def noting(*arguments, **named):
            self.peaks.append(high_water_mark())
            return peak_memory(*arguments, **named)

        return noting


def high_water_mark() -> int:
    """The largest resident memory of this process in bytes, since the mark was last reset."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def child() -> None:
    """Run the page that standard input describes, and write what was measured as JSON."""
    # What cells print goes to standard error, so that nothing mixes with the answer.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    os.chdir(job["folder"])
    clock = Clock()
    clock.category["start"] = "process"
    clock.seconds["start"] = time.time() - job["began"]
    instruments = Instruments(clock)
    instruments.attach()
    cells, failure = run_cells(shell, job, clock)
    answer = {
        "peak_memory": max([*instruments.peaks, high_water_mark()]),
        "categories": clock.categories(),
        "functions": clock.functions(),
        "calls": {label: n for label, n in clock.calls.items() if not label.startswith("import ")},
        "cells": cells,
        "failure": failure,
    }
    print(json.dumps(answer), file=channel, flush=True)


def run_cells(shell, job: Mapping, clock: Clock) -> tuple[list[dict], dict | None]:
    """Run code cells in order until one fails.

    Returns:
        For each cell its place, first line, seconds and their split; and the failure, if any.
    """
    cells = []
    for cell in job["cells"]:
        before = clock.categories()
        result = shell.run_cell(cell["source"], store_history=True)
        if cell["sets_parameters"]:
            shell.push(job["parameters"])
        spent = clock.categories() - before
        line = cell["source"].strip().partition("\n")[0]
        seconds = round(spent.total(), 3)
        cells.append(
            {"cell": cell["index"], "line": line, "seconds": seconds, "categories": rounded(spent)}
        )
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            message = f"{type(error).__name__}: {error}".partition("\n")[0]
            return cells, {"cell": cell["index"], "message": message}
    return cells, None


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by category, in the order of the categories, without those that round to 0."""
    values = {name: round(seconds.get(name, 0.0), 3) for name in CATEGORIES}
    return {name: value for name, value in values.items() if value}


def run_page(runnable, parameters: Mapping, profile: str) -> dict:
    """Run a page in a process of its own, as a kernel of that profile would.

    Returns:
        `seconds` and what `child` measured. `failure` is a line of text, None without one.
    """
    from prunebook.files import cache_folder, make_folder
    from prunebook.notebook.quick import PROFILE_VARIABLE
    from prunebook.runs.notebooks import place

    source = runnable.read()
    code = {i: cell for i, cell in enumerate(source.cells) if cell.cell_type == "code"}
    tagged = [i for i, cell in code.items() if "parameters" in cell.metadata.get("tags", [])]
    job = {
        "folder": str(runnable.path.parent),
        "parameters": dict(parameters),
        "cells": [
            {"index": i, "source": cell.source, "sets_parameters": tagged[:1] == [i]}
            for i, cell in code.items()
        ],
    }
    environment = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        PROFILE_VARIABLE: profile,
    }
    with (
        tempfile.TemporaryDirectory() as cache,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
    ):
        # What is read from the user's cache; trials and sweeps go to an empty one.
        for kind in ("models", "articles", "tokens", "baselines"):
            Path(cache, kind).symlink_to(make_folder(cache_folder().resolve() / kind))
        environment["PRUNEBOOK_CACHE"] = cache
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.pages", "--child"],
            input=json.dumps(job | {"began": time.time()}),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=os.environ | environment,
        )
        seconds = time.perf_counter() - start
        log.seek(0)
        last = "".join(log.read().strip().splitlines()[-1:])
    if done.returncode or not done.stdout:
        return {"failure": f"the process ended with code {done.returncode}; its last line: {last}"}
    answer = json.loads(done.stdout)
    if answer["failure"]:
        where = place(source, answer["failure"]["cell"])
        return answer | {"failure": f"{where}: {answer['failure']['message']}"}
    # What the categories lack of the wall time is the end of the process.
    categories = Counter(answer["categories"])
    end = seconds - categories.total()
    categories["process"] += end
    answer["functions"].setdefault("process", {})["end"] = round(end, 3)
    return {"seconds": round(seconds, 3), **answer, "categories": rounded(categories)}


def machine() -> dict:
    """The processor, its cores, and the threads that a page computes with."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = os.cpu_count()
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": cores,
        "threads": int(os.environ.get("OMP_NUM_THREADS") or cores),
    }


def read_record(path: Path, profile: str) -> dict:
    """The record at `path`, or a new one.

    Raises:
        UserError: the file holds something else, or pages of another profile or machine.
    """
    head = {"kind": "prunebook-pages", "version": 1, "profile": profile, "machine": machine()}
    if not path.exists():
        return head | {"categories": CATEGORIES, "rows": []}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = {name: record[name] for name in (*head, "rows")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no record of pages ({error!r}); give another --out") from error
    for name, value in head.items():
        if found[name] != value:
            raise UserError(f"{path} has {name} {found[name]!r}, not {value!r}; give another --out")
    return record


def known_seconds(root: Path, profile: str, pages: Iterable) -> dict[str, float]:
    """What the last run of each page took, by name, as far as there was one."""
    from prunebook.runs.executed import read_execution

    executions = [(page.name, read_execution(root, profile, page.name)) for page in pages]
    return {name: execution.seconds for name, execution in executions if execution}


def expected(names: Iterable[str], known: Mapping[str, float]) -> str:
    """What pages take if they take what they took before, and others the mean of those known."""
    if not known:
        return "unknown"
    mean = sum(known.values()) / len(known)
    return minutes(sum(known.get(name, mean) for name in names))


def minutes(seconds: float) -> str:
    """Seconds, from 100 on minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def summary(answer: Mapping) -> str:
    """A page in a few words: its wall time, the four longest categories, its memory."""
    longest = Counter(answer["categories"]).most_common(4)
    split = ", ".join(f"{name} {seconds:.1f}" for name, seconds in longest)
    return f"{answer['seconds']:.1f} s ({split}), {answer['peak_memory'] / 1e9:.2f} GB"


def table(rows: Sequence[Mapping]) -> str:
    """The seconds of pages by category, their sums and shares, in Markdown."""
    total = sum(row["seconds"] for row in rows)
    sums = Counter()
    for row in rows:
        sums.update(row["categories"])
    lines = [f"| page | total | {' | '.join(CATEGORIES)} |", f"|---|--:{'|--:' * len(CATEGORIES)}|"]
    for row in [*rows, {"name": "**all**", "seconds": total, "categories": sums}]:
        values = [row["seconds"], *(row["categories"].get(name, 0.0) for name in CATEGORIES)]
        lines.append(f"| {row['name']} | {' | '.join(f'{value:.1f}' for value in values)} |")
    shares = [f"{sums[name] / total:.1%}" for name in CATEGORIES]
    lines.append(f"| **share** | 100 % | {' | '.join(shares)} |")
    return "\n".join(lines)


def chosen_pages(root: Path, names: Sequence[str]) -> list:
    """The runnables of those names in the book's order; all where there are no names.

    Raises:
        UserError: an unknown name, or a source that cannot be read.
    """
    from prunebook.runs.notebooks import read_runnables

    pages = [runnable for runnable in read_runnables(root) if runnable.implemented]
    allowed = [page.name for page in pages]
    for name in names:
        if name not in allowed:
            raise UserError(f"unknown page {name!r}; allowed: {', '.join(allowed)}")
    return [page for page in pages if not names or page.name in names]


def measure_pages(root: Path, names: Sequence[str], profile: str, out: Path, force: bool) -> None:
    """Measure what the record lacks, write it, and print a line a page and the table.

    Raises:
        UserError: an unknown page or profile, a record of something else, or pages that failed.
    """
    from prunebook.files import write_atomic
    from prunebook.notebook.results import library_commit
    from prunebook.runs.cache_key import pinned_versions
    from prunebook.runs.executed import current_key, parameters_for

    check_tables()
    pages = chosen_pages(root, names)
    record = read_record(out, profile)
    rows = {row["name"]: row for row in record["rows"]}
    keys = {page.name: current_key(root, profile, page) for page in pages}
    done = {name for name, row in rows.items() if row["key"] == keys.get(name) and not force}
    waiting = [page for page in pages if page.name not in done]
    known = known_seconds(root, profile, pages) | {n: row["seconds"] for n, row in rows.items()}
    failed = []
    start = time.perf_counter()
    for number, page in enumerate(waiting, 1):
        label = f"[{number}/{len(waiting)}] {page.name}"
        left = [each.name for each in waiting[number - 1 :]]
        times = f"{minutes(time.perf_counter() - start)} so far, {expected(left, known)} to go"
        print(f"{label}: expected {expected(left[:1], known)}; {times}", flush=True)
        parameters = parameters_for(root, profile, page, page.read())
        answer = run_page(page, parameters, profile)
        failure = answer.pop("failure")
        if failure:
            failed.append(page.name)
            print(f"{label}: failed, {failure}", flush=True)
            continue
        rows[page.name] = {
            "name": page.name,
            "key": keys[page.name],
            "parameters": parameters,
            **answer,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": library_commit(),
            "versions": pinned_versions(),
        }
        known[page.name] = answer["seconds"]
        write_atomic(out, json.dumps(record | {"rows": [*rows.values()]}, indent=1) + "\n")
        print(f"{label}: {summary(answer)}", flush=True)
    measured = [rows[page.name] for page in pages if page.name in rows]
    if measured:
        print(f"\n{table(measured)}")
    if failed:
        raise UserError(f"not measured: {', '.join(failed)}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="papers' slugs and pages' names")
    parser.add_argument("--profile", default="quick", help="a profile of papers/profiles.yml")
    parser.add_argument("--root", default=ROOT, type=Path, help="the book's folder")
    parser.add_argument("--out", default=RESULT, type=Path, help="the record")
    parser.add_argument("--force", action="store_true", help="measure also what has not changed")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return child()
    try:
        root = options.root.resolve()
        measure_pages(root, options.names, options.profile, options.out, options.force)
    except UserError as error:
        raise SystemExit(f"benchmarks.pages: {error}") from error
    return None


if __name__ == "__main__":
    main()
