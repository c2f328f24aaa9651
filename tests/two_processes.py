"""Training in two processes that share the windows of each step, for `recovery/test_finetune`."""

import multiprocessing
import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from prunebook.recovery.distillation import distill
from prunebook.recovery.finetune import full, lora
from prunebook.recovery.training import Training

# Kind of training -> losses and all weights.
Trained = dict[str, tuple[list[float], torch.Tensor]]


def trained(processes: int, make_model) -> Trained:
    """What one process has found that takes its share of every step's four windows."""
    text = torch.randint(100, (8, 16), generator=torch.Generator().manual_seed(0))
    training = Training(learning_rate=1e-2, batch=4 // processes)
    found = {}
    for kind, learn in {
        "full": lambda m: full(m, text, training),
        "lora": lambda m: lora(m, text, training, targets=["up_proj"], dropout=0.0),
        "distill": lambda m: distill(m, make_model("llama", seed=1), text, training),
    }.items():
        model = make_model("llama")
        losses = learn(model)
        found[kind] = losses, torch.cat([p.detach().flatten() for p in model.parameters()])
    return found


def trained_together(folder: Path, make_model) -> list[Trained]:
    """What each of two processes has found; they meet, and leave it, in `folder`."""
    # A forked process has all imports already, which take it 10 s otherwise.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    processes = [
        context.Process(target=_train_in_one_of_two, args=(index, folder, make_model))
        for index in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        process.kill()  # nothing happens to one that has ended
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{index}.pt") for index in range(2)]


def _train_in_one_of_two(index: int, folder: Path, make_model) -> None:
    """Join the other process, train, and save what was found as `<index>.pt`."""
    torch.set_num_threads(1)  # the threads of the process that this one was forked from are gone
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    AcceleratorState._reset_state(reset_partial_state=True)  # it was of a process alone
    meeting_place = f"file://{folder / 'store'}"
    torch.distributed.init_process_group(
        "gloo", init_method=meeting_place, rank=index, world_size=2
    )
    torch.save(trained(2, make_model), folder / f"{index}.pt")
    torch.distributed.destroy_process_group()
