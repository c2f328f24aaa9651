"""What blocks of small models of several families hold; a statistic that keeps its inputs."""

import pytest
import torch

LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3")
FAMILIES = (*LIKE_LLAMA, "opt", "gpt2")
GATED = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]
LINEARS = {
    **{name: ("model.layers", GATED) for name in LIKE_LLAMA},
    "opt": (
        "model.decoder.layers",
        [
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.q_proj",
            "self_attn.out_proj",
            "fc1",
            "fc2",
        ],
    ),
    "gpt2": ("transformer.h", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
}
GROUPS = {
    **{name: [GATED[:3], GATED[3:4], GATED[4:6], GATED[6:]] for name in LIKE_LLAMA},
    "opt": [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        ["self_attn.out_proj"],
        ["fc1"],
        ["fc2"],
    ],
    "gpt2": [["attn.c_attn"], ["attn.c_proj"], ["mlp.c_fc"], ["mlp.c_proj"]],
}
every_family = pytest.mark.parametrize("family", FAMILIES)


class Inputs:
    """A statistic that keeps what it sees."""

    def __init__(self, width, device):
        self.width = width
        self.seen = []

    def update(self, inputs):
        self.seen.append(inputs.clone())

    def is_finite(self):
        return True

    @property
    def all(self):
        return torch.cat(self.seen)


def hooks(model):
    return [name for name, m in model.named_modules() if m._forward_pre_hooks or m._forward_hooks]
