"""The official model of Sheared LLaMA, made of a tiny Llama, for the adapter `sheared_llama`."""

import types

import torch
from transformers import PreTrainedModel, pytorch_utils

from .common import stand_in

# our axis -> the official module, in the order of the official script
MODULES = {"heads": "head", "neurons": "intermediate", "blocks": "layer", "hidden": "hidden"}
FULL = {"heads": 4, "neurons": 96, "blocks": 4, "hidden": 64}
KEPT = {"heads": 2, "neurons": 60, "blocks": 3, "hidden": 48}
RAMP = 8
# our module -> theirs
_WEIGHTS = {
    "self_attn.q_proj": "attn.wq",
    "self_attn.k_proj": "attn.wk",
    "self_attn.v_proj": "attn.wv",
    "self_attn.o_proj": "attn.out_proj",
    "mlp.gate_proj": "mlp.gate_proj",
    "mlp.up_proj": "mlp.up_proj",
    "mlp.down_proj": "mlp.down_proj",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "model.layers": "transformer.blocks",
    "model.embed_tokens": "transformer.wte",
    "model.norm": "transformer.ln_f",
    "lm_head": "transformer.output",
}


class _Config(dict):
    """Stands in for a `DictConfig`: entries are attributes, too."""

    __getattr__ = dict.__getitem__


class _Time:
    """Stands in for Composer's time, e.g. "640ba" for 640 batches."""

    @staticmethod
    def from_timestring(text: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(value=int(text.removesuffix("ba")))


def stand_ins() -> None:
    """Modules in place of those that the repository imports and that are not needed."""
    bare = types.SimpleNamespace
    stand_in("composer", Callback=bare, Logger=bare, State=bare)
    stand_in("composer.core")
    stand_in("composer.core.time", Time=_Time)
    stand_in("composer.loggers", Logger=bare)
    stand_in("composer.metrics", METRIC_DEFAULT_CTORS={})
    stand_in("composer.metrics.nlp", LanguageCrossEntropy=bare, LanguagePerplexity=bare)
    stand_in("composer.models")
    stand_in("composer.models.base", ComposerModel=torch.nn.Module)
    stand_in("composer.utils", dist=None, get_device=None, reproducibility=None)
    stand_in("einops", rearrange=_heads_apart)
    stand_in("omegaconf", DictConfig=_Config)
    stand_in("llmshearing.models.metrics", DomainCount=bare, DomainLanguageCrossEntropy=bare)
    pytorch_utils.find_pruneable_heads_and_indices = _rows_of_other_heads


def _heads_apart(x: torch.Tensor, pattern: str, h: int) -> torch.Tensor:
    """The one pattern of `rearrange` that attention without flash-attn uses."""
    if pattern != "b s (h d) -> b h s d":
        raise ValueError(f"no stand-in for {pattern}")
    return x.unflatten(2, (h, -1)).transpose(1, 2)


def _rows_of_other_heads(heads: list[int], count: int, size: int, gone: set) -> tuple:
    """As in older transformers: heads that go, and the rows of those that stay."""
    if gone:
        raise ValueError("heads are cut once")
    kept = torch.ones(count, size, dtype=torch.bool)
    kept[heads] = False
    return set(heads), kept.flatten().nonzero().flatten()


def official_model(modelling, model: PreTrainedModel):
    """`ComposerMosaicLlama` with the weights of a Llama and spread `log_alpha` and multipliers.

    Args:
        modelling: the repository's module.
        model: a Llama of the sizes `FULL`.
    """
    target = {"vocab_size": 128} | _sizes(KEPT)
    masks = {
        "pruning_modules": list(MODULES.values()),
        "start_sparsity": 0.0,
        "lagrangian_warmup_steps": f"{RAMP}ba",
        "target_model": _Config(target),
    }
    config = {
        "name": "llama",
        "init_device": "cpu",
        "attn_impl": "normal",
        "max_seq_len": 64,
        "vocab_size": 128,
        "set_names": None,
        "l0_module": _Config(masks),
    }
    official = modelling.ComposerMosaicLlama(_Config(config | _sizes(FULL)))
    weights = {official_name(name): value for name, value in model.state_dict().items()}
    missing, unexpected = official.model.load_state_dict(weights, strict=False)
    if unexpected or any("l0_module" not in x and "rotary" not in x for x in missing):
        raise ValueError(f"weights {missing} {unexpected} do not fit")
    generator = torch.Generator().manual_seed(1)
    module = official.model.l0_module
    for mask in module.masks.values():
        # Some are beyond the limits of 4.6.
        mask.z_loga.copy_(2 * torch.randn(mask.z_loga.shape, generator=generator))
    for multiplier in module.lambdas.values():
        multiplier.copy_(torch.randn((), generator=generator))
    return official


def _sizes(sizes: dict[str, int]) -> dict[str, int]:
    """A shape in the words of the official configuration."""
    return {
        "d_model": sizes["hidden"],
        "n_heads": sizes["heads"],
        "n_layers": sizes["blocks"],
        "intermediate_size": sizes["neurons"],
    }


def official_name(name: str) -> str:
    """The official name of one of our parameters."""
    for ours, theirs in _WEIGHTS.items():
        name = name.replace(ours, theirs)
    return name
