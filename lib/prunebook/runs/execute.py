"""Executing one notebook with papermill, in a process of its own.

The process reports on a channel, one JSON object a line: `{"cell": 3}`, the number of cells done,
after each cell; `{"failure": {...}}` if the notebook fails; and at the end `{"peak_memory": ...}`,
the bytes that its kernel held at most.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from ..notebook.stated import CLAIMS_VARIABLE
from .forked_kernel import ForkedKernel, ForkedProvisioner

_INJECTED = "injected-parameters"  # papermill's tag for the cell that it adds
_COLOUR = re.compile(r"\x1b\[[\d;]*m")  # how IPython colours a traceback
_CELL_LINE = re.compile(r"Cell In ?\[\d+\], line (\d+)")  # where it says that a cell failed
# A report must fit into the 4,096 bytes that a pipe takes at once, and JSON may need 12 bytes for a
# character. So a report has at most this many characters of each text.
_LONGEST_TEXT = 100


class _Kernel(AsyncKernelManager):
    """The manager of a kernel of this interpreter, whatever kernels the user has installed."""

    forked: ForkedKernel | None = None

    @property
    def kernel_spec(self) -> KernelSpec:
        """The command of a kernel where none has been forked."""
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
        )

    async def _async_pre_start_kernel(self, **options: Any):
        if self.forked is not None:
            self.kernel_id = self.kernel_id or f"forked-{self.forked.pid}"
            self.provisioner = ForkedProvisioner(
                kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
            )
            self.provisioner.kernel = self.forked
        return await super()._async_pre_start_kernel(**options)


class _Engine(NBClientEngine):
    """Papermill's own engine, made to report each cell and to remember the current one."""

    report: Callable[..., None]
    cells: list = ()
    current = 0

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
        # A copy, because papermill inserts cells of its own into the notebook's list later.
        cls.cells = list(nb_man.nb.cells)
        start = nb_man.cell_start
        complete = nb_man.cell_complete

        def start_reported(cell, cell_index=None, **options):
            cls.current = cell_index
            start(cell, cell_index, **options)

        def complete_reported(cell, cell_index=None, **options):
            complete(cell, cell_index, **options)
            cls.report(cell=cell_index + 1)

        nb_man.cell_start = start_reported
        nb_man.cell_complete = complete_reported
        return super().execute_managed_notebook(
            nb_man, kernel_name, kernel_manager_class=_Kernel, **kwargs
        )


def execute(job: dict[str, Any], report: Callable[..., None], *, fork: bool) -> None:
    """Execute a notebook; the failure of a cell is reported, not raised.

    Args:
        job: paths `input` and `output`, `parameters`, working folder `cwd`, and perhaps `claims`,
            what the record states, as JSON.
        report: function that is called with one field of the channel at a time.
        fork: True to fork the kernel from this process, which must have no thread and no event
            loop yet; False to start it from nothing.

    Raises:
        Exception: what is neither the notebook's fault nor its kernel's, e.g. a full disk. It is
            reported, too.
    """
    os.chdir(job["cwd"])
    os.environ[CLAIMS_VARIABLE] = job.get("claims", "")  # the kernel inherits it
    _Kernel.forked = ForkedKernel() if fork else None
    _Engine.report = report
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
        failure = _failure(error.cell_index, error.ename, error.evalue, error.traceback)
        report(failure=failure)
    except Exception as error:  # e.g. a dead kernel or a full disk; the log has the traceback
        report(failure=_failure(_Engine.current, type(error).__name__, str(error)))
        raise
    finally:
        if _Kernel.forked:
            _Kernel.forked.kill()
            _Kernel.forked.wait()
            report(peak_memory=_Kernel.forked.peak_memory)


def _failure(index: int, error: str, message: str, traceback: Sequence[str] = ()) -> dict[str, Any]:
    """The report of a failure, which the summary shows.

    Args:
        index: index of the cell in the notebook that is executed.
        error: name of the exception.
        message: its message.
        traceback: lines of its traceback, as IPython prints them; empty where there is none.

    Returns:
        The same with the line of the cell that failed; `cell` is its index in the source notebook.
    """
    injected = sum(_INJECTED in cell.metadata.get("tags", []) for cell in _Engine.cells[:index])
    source = ""
    if index < len(_Engine.cells):
        source = _Engine.cells[index].source.strip()
    return {
        "cell": index - injected,
        "line": _failing_line(source, traceback)[:_LONGEST_TEXT],
        "error": error[:_LONGEST_TEXT],
        "message": message.strip().partition("\n")[0][:_LONGEST_TEXT],
    }


def _failing_line(source: str, traceback: Sequence[str]) -> str:
    """The line of a cell at which it failed; the first line where the traceback does not say it.

    Args:
        source: code of the cell, without the empty lines around it, which IPython does not count.
        traceback: lines of the traceback, the cell's own frame first.
    """
    lines = source.splitlines() or [""]
    place = _CELL_LINE.search(_COLOUR.sub("", "\n".join(traceback)))
    if place is None or int(place[1]) > len(lines):
        return lines[0]
    return lines[int(place[1]) - 1].strip()


def channel_to(descriptor: int, job: int) -> Callable[..., None]:
    """A function that writes its fields as one line, marked with the number of the job.

    Args:
        descriptor: where it writes.
        job: number of the job.
    """

    def report(**fields: Any) -> None:
        os.write(descriptor, (json.dumps({"job": job, **fields}) + "\n").encode())

    return report


def main() -> None:
    """Execute the job that standard input describes, with a kernel that is started from nothing."""
    channel = os.dup(1)
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    execute(job, channel_to(channel, job["job"]), fork=False)


if __name__ == "__main__":
    main()
