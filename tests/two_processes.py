"""A script of `recovery/test_finetune`: train in several processes, and save what each has found.

python -m torch.distributed.run --standalone --nproc_per_node=2 two_processes.py FOLDER
"""

import sys

import torch
from accelerate import PartialState

from prunebook.recovery.distillation import distill
from prunebook.recovery.finetune import full, lora
from prunebook.recovery.training import Training


def trained(processes: int, make_model) -> dict[str, tuple[list[float], torch.Tensor]]:
    """Kind of training -> losses and all weights, of a process that takes its share of every step's
    four windows."""
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


if __name__ == "__main__":
    from conftest import build_model  # by this name only here, where no other conftest is loaded

    state = PartialState(cpu=True)
    torch.save(trained(state.num_processes, build_model), f"{sys.argv[1]}/{state.process_index}.pt")
