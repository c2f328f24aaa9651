"""Execute one notebook with papermill, in a process of its own.

The process reports on a channel, one JSON object a line: `{"cell": 3}`, the number of cells done,
after each cell; `{"failure": {...}}` if the notebook fails; `{"peak_memory": bytes}` of its kernel.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from .forked_kernel import ForkedKernel, ForkedProvisioner

_INJECTED = "injected-parameters"
# characters of a text, up to 12 bytes each: a report must fit into a pipe's 4,096 bytes
_SHOWN = 100


class _Kernel(AsyncKernelManager):
    """A kernel of the interpreter that runs this, whatever kernels the user has installed."""

    forked: ForkedKernel | None = None

    @property
    def kernel_spec(self) -> KernelSpec:
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
    """Papermill's own engine, which reports each cell and remembers the one it is at."""

    report: Callable[..., None]
    cells: list = ()
    current = 0

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
        # papermill later inserts its marks into the notebook's own list
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
    """Execute a notebook; a failing one is reported, not raised.

    Args:
        job: `input`, `output`, `parameters`, `cwd`.
        report: called with one field at a time, as the channel has them.
        fork: make the kernel by a fork of this process, which has no thread and no event loop yet.
    Raises:
        Exception: what is neither the notebook's fault nor its kernel's, such as a full disk;
            reported, too.
    """
    os.chdir(job["cwd"])
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
        report(failure=_failure(error.cell_index, error.ename, error.evalue))
    # a dead kernel, a full disk: the summary names it, the log has the traceback
    except Exception as error:
        report(failure=_failure(_Engine.current, type(error).__name__, str(error)))
        raise
    finally:
        if _Kernel.forked:
            _Kernel.forked.kill()
            _Kernel.forked.wait()
            report(peak_memory=_Kernel.forked.peak_memory)


def _failure(index: int, error: str, message: str) -> dict:
    """What the summary says; the index is that of the cell in the source notebook."""
    injected = sum(_INJECTED in cell.metadata.get("tags", []) for cell in _Engine.cells[:index])
    source = _Engine.cells[index].source.strip() if index < len(_Engine.cells) else ""
    return {
        "cell": index - injected,
        "line": source.partition("\n")[0][:_SHOWN],
        "error": error[:_SHOWN],
        "message": message.strip().partition("\n")[0][:_SHOWN],
    }


def channel_to(descriptor: int, job: int) -> Callable[..., None]:
    """A function that writes its one named field to the descriptor as a line, marked with the job's
    number."""

    def report(**fields: Any) -> None:
        os.write(descriptor, (json.dumps({"job": job, **fields}) + "\n").encode())

    return report


def main() -> None:
    """Execute the job that standard input describes, with a kernel started from nothing."""
    channel = os.dup(1)
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    execute(job, channel_to(channel, job["job"]), fork=False)


if __name__ == "__main__":
    main()
