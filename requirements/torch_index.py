"""Print the arguments that have pip take torch's CPU build, where a machine wants it.

On Linux the default index brings the CUDA packages of torch, several GB. Without an NVIDIA GPU
they are of no use. Nothing is printed where there is one, where pip has been given indexes, and
where the index does not answer: pip then takes what it takes by itself.
"""

import http.client
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

GPU_DEVICE = Path("/dev/nvidiactl")
PROBE_SECONDS = 2
SETTINGS = {"index-url", "extra-index-url", "find-links", "no-index"}


def pip_arguments(index: str) -> str:
    """The arguments for `pip install`, or an empty string.

    Args:
        index: address of an index with CPU builds of torch.
    """
    # The default wheels of macOS and Windows are CPU builds.
    if sys.platform != "linux" or has_gpu() or chooses_index():
        return ""
    if answers(index):
        return f"--extra-index-url {index}"
    print(f"{index} does not answer: torch comes from the default index", file=sys.stderr)
    return ""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is there; inside WSL only `nvidia-smi` tells."""
    if GPU_DEVICE.exists():
        return True
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    return subprocess.run([command], capture_output=True, check=False).returncode == 0


def chooses_index() -> bool:
    """Whether pip's files or variables say where packages come from."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [line.split("=")[0].split(".")[-1] for line in output.splitlines()]
    return not SETTINGS.isdisjoint(names)


def answers(index: str) -> bool:
    """Whether the index shows its page of torch within `PROBE_SECONDS`."""
    found = []

    def ask():
        try:
            with urllib.request.urlopen(f"{index}/torch/", timeout=PROBE_SECONDS) as response:
                found.append(response.status == 200)
        except (OSError, http.client.HTTPException):
            found.append(False)

    # A thread, because looking up a host's name has no time limit of its own.
    probe = threading.Thread(target=ask, daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return found == [True]


def main(index: str) -> None:
    """Print the arguments for `pip install`, or nothing."""
    arguments = pip_arguments(index)
    if arguments:
        print(arguments)


if __name__ == "__main__":
    main(sys.argv[1])
