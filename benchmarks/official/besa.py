"""BESA row-wise at 50 %, OpenGVLab/LLMPrune-BESA: `compress_model` of `main.py` as it is, with our
tokens.

The options are those of the published row-wise command for LLaMA-7B, `--blocksize 1 --d-coef 5
--sparsity-beta 5`, with `--no-scaler`, as float32 needs no gradient scaler, and `--no-dense-loss`,
so that the code is not charged for a dense stream that it only logs. Replaced: float16 autocast by
float32, the CUDA extension `mask_gen_cuda` by a scatter on the CPU, and the arguments of decoder
layers by those of today's transformers. `timm`, `lm_eval` and the modules that load models and text
are empty; nothing is logged.

`official variant` has the same reference and soft budget; `exact` is the default, on the dense
model's outputs.
"""

import contextlib
import sys
import types

import torch

from prunebook.criteria.wanda import wanda_score
from prunebook.methods import BESA
from prunebook.methods.besa.learned_sparsity import LearnedRates
from prunebook.passes.statistics import InputNorm

from .common import adapt, arguments, linears_with_inputs, loader, official_module

REPOSITORY = "https://github.com/OpenGVLab/LLMPrune-BESA"
COMMIT = "4158d77"
SPARSITY = 0.5
OURS = {
    "official variant": BESA(sparsity=SPARSITY, reference="pruned", exact_count=False),
    "exact": BESA(sparsity=SPARSITY),
    "fast": BESA(sparsity=SPARSITY, precision="fast"),
}


def _mask_gen_forward(
    mask: torch.Tensor, order: torch.Tensor, counts: torch.Tensor
) -> list[torch.Tensor]:
    """Zero the first `counts [R]` entries of `order [R, C]` in each row of `mask [R, C]`, as the
    CUDA kernel does."""
    places = torch.arange(order.shape[1])
    return [mask.scatter_(1, order, (places >= counts[:, None]).to(mask.dtype))]


def _module(folder: str):
    """The repository's `main`, its imports that this needs nothing of standing in as empty
    modules."""
    missing = {
        "timm": {},
        "timm.utils": {"NativeScaler": None},
        "lm_eval": {"tasks": None, "evaluator": None},
        "models.llama": {"LLaMA": None},
        "models.llama_seq": {"LLaMA_Seq": None},
        "utils.data": {"get_loaders": None},
        "mask_gen_cuda": {"mask_gen_forward": _mask_gen_forward},
    }
    for name, members in missing.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module
    main = official_module(folder, "main")
    main.wandb.log = lambda _: None
    return main


def _options(samples: int):
    return arguments(
        nsamples=samples,
        sparsity=SPARSITY,
        use_fp32=False,
        no_scaler=True,
        no_dense_loss=True,
        prune_dense=False,
        epochs=1,
        prune_batch_size=1,
        metric_type="Wanda",
        wise_dim="row",
        blocksize=1,
        sparsity_step=0.01,
        lora_rank=-1,
        norm_all=False,
        l2_alpha=1,
        sparsity_beta=5.0,
        no_sigmoid_smooth=False,
        clip_grad=None,
        clip_mode="norm",
        use_cos_sche=False,
        normal_opt=False,
        prodigy_lr=1,
        no_decouple=False,
        use_bias_correction=False,
        safeguard_warmup=False,
        weight_decay=0,
        d_coef=5.0,
        fix_layers=None,
        model="llama",
    )


def official(model, tokens: torch.Tensor, folder: str) -> None:
    """The repository's `compress_model`, in place."""
    main = _module(folder)
    main.args = _options(len(tokens))
    main.inference_context = contextlib.nullcontext()
    adapt(model, tokens.shape[1])
    # The wrapper holds what the loop reads of its own: config, length, and the causal model as
    # `.model`.
    wrapped = types.SimpleNamespace(config=model.config, model=model, seqlen=tokens.shape[1])
    torch.set_grad_enabled(False)  # as `LLaMA_Seq` does
    data, _ = loader(tokens)()
    main.compress_model(wrapped, data)


def same_inputs(model, tokens: torch.Tensor, folder: str) -> list[dict]:
    """Single linears, both sides given the same theta, weight, inputs and upstream gradient, at the
    start and at random
    rates: mask bits that differ (the code rounds 287.99999 weights of a row down to 287, we do
    not), and the relative difference of the gradients of theta."""
    _module(folder)
    sparse = official_module(folder, "models.sparse_layers")
    rows = []
    for name, linear, inputs in linears_with_inputs(model, tokens):
        norm = InputNorm(linear.in_features, linear.weight.device)
        layer = sparse.SparseLinear(linear)
        for one in inputs:
            norm.update(one)
            layer.add_batch(one, None)
        row = {"linear": name, "weights": linear.weight.numel()}
        layer.init_learn_sparsity(0.01, blocksize=1, sigmoid_smooth=True)
        weight = linear.weight.data.clone()
        score = wanda_score(weight, norm.norm()).dense()
        learned = LearnedRates({name: score}, {name: weight}, "row", True)
        # floor(C p_d) of candidates summed in float32 there, 0.9899999 for 0.99; the same ones for
        # both here
        learned.beyond[name] = layer.prob_map_matrix.sum(0).to(torch.uint8)[
            learned.ranks[name].int()
        ]
        generator = torch.Generator().manual_seed(0)
        upstream = torch.randn(len(inputs[0]), linear.out_features, generator=generator)
        for label, scale in (("start", 0), ("random", 3)):
            theta = torch.randn(learned.theta.shape, generator=generator) * scale
            learned.theta.data.copy_(theta)
            layer.sparsity_probabilities.data.copy_(theta)
            with torch.enable_grad():
                masked, _ = learned.masked()
                ours = torch.autograd.grad(
                    ((inputs[0] @ masked[name].T) * upstream).sum(), learned.theta
                )[0]
                theirs = torch.autograd.grad(
                    (layer(inputs[0]) * upstream).sum(), layer.sparsity_probabilities
                )[0]
            different = (layer.get_weight_mask() != 0) != (masked[name] != 0)
            row |= {
                f"{label}_bits_different": int((different & (weight != 0)).sum()),
                f"{label}_gradient_difference": ((ours - theirs).norm() / theirs.norm()).item(),
            }
        rows.append(row)
    return rows
