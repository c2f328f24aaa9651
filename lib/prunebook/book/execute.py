"""Execute one notebook: the process that `run_notebooks` starts for each, `python -m prunebook.book.execute`.

It reads the job as JSON from standard input and writes one JSON object a line: `{"cell": 3}`, the number of
cells done, after each cell and, if the notebook fails, `{"failure": {...}}`. All else goes to standard error.
"""

import json
import os
import sys
from collections.abc import Callable

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

_INJECTED = "injected-parameters"


class _Kernel(AsyncKernelManager):
    """A kernel of the interpreter that runs this, whatever kernels the user has installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
        )


class _Engine(NBClientEngine):
    """Papermill's own engine, which reports each cell and remembers the one it is at."""

    report: Callable[..., None]
    cells: list = ()
    current = 0

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
        cls.cells = list(nb_man.nb.cells)  # papermill later inserts its marks into the notebook's own list
        start, complete = nb_man.cell_start, nb_man.cell_complete

        def start_reported(cell, cell_index=None, **options):
            cls.current = cell_index
            start(cell, cell_index, **options)

        def complete_reported(cell, cell_index=None, **options):
            complete(cell, cell_index, **options)
            cls.report(cell=cell_index + 1)

        nb_man.cell_start, nb_man.cell_complete = start_reported, complete_reported
        return super().execute_managed_notebook(nb_man, kernel_name, kernel_manager_class=_Kernel, **kwargs)


def _failure(index: int, error: str, message: str) -> dict:
    """What the summary says; the index is that of the cell in the source notebook."""
    injected = sum(_INJECTED in cell.metadata.get("tags", []) for cell in _Engine.cells[:index])
    source = _Engine.cells[index].source.strip() if index < len(_Engine.cells) else ""
    return {
        "cell": index - injected,
        "line": source.partition("\n")[0],
        "error": error,
        "message": message.strip().partition("\n")[0],
    }


def main() -> None:
    """Execute the job that standard input describes: `input`, `output`, `parameters`, `cwd`."""
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    _Engine.report = lambda **fields: print(json.dumps(fields), file=channel, flush=True)
    papermill_engines.register("prunebook", _Engine)
    try:
        papermill.execute_notebook(
            job["input"],
            job["output"],
            job["parameters"],
            engine_name="prunebook",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=job["cwd"],
        )
    except PapermillExecutionError as error:
        _Engine.report(failure=_failure(error.cell_index, error.ename, error.evalue))
    except Exception as error:  # a dead kernel, a full disk: the summary names it, the log has the traceback
        _Engine.report(failure=_failure(_Engine.current, type(error).__name__, str(error)))
        raise


if __name__ == "__main__":
    main()
