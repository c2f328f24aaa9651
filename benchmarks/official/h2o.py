"""H2O, FMInference/H2O: the four kinds of attention in `h2o_hf/` on tiny random models.

The official modules run as they are in the blocks of a tiny random Llama; that for OPT runs alone.
`LlamaRotaryEmbedding` and `apply_rotary_pos_emb` have stand-ins with their old signatures.

One difference of each is neutralised first, so that the same tokens must stay:

- `utils_real_drop/modify_llama.py` has none for one text and as many key-value heads as heads.
- `utils_hh/modify_llama.py` hides what leaves the recent window for a step; here it is shown.
- `utils_lm_eval/modify_opt.py` takes weights over the whole cache: here the logits that a row does
  not see are set to the lowest number before the next row. Its heavy hitters protect no token but
  the one that is read, which counts as one of them: ours get no recent window here.
- `utils_lm_eval/modify_llama.py` counts later queries: the last one of a prompt has none.

A set is what one head of one block keeps outside the recent window after one token.
"""

import unittest.mock
from types import SimpleNamespace

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from prunebook.caches.h2o import H2OCache
from prunebook.caches.layer import PrunedLayer
from prunebook.caches.policy import CacheBudget

from .common import official_module, relative_difference, tiny_llama, tiny_tokens

REPOSITORY = "https://github.com/FMInference/H2O"
COMMIT = "ac75c2a"
_PROMPT = 16
_LENGTH = 100
_HEAVY = 10
_RECENT = 4
_LOWEST = torch.finfo(torch.float32).min


class _Rotary(torch.nn.Module):
    """Rotary embeddings as transformers once had them: cosines and sines `[length, width]`."""

    def __init__(self, width: int, max_position_embeddings: int, base: float = 10000.0):
        super().__init__()
        self.frequencies = base ** -(torch.arange(0, width, 2) / width)

    def forward(self, values: torch.Tensor, seq_len: int) -> tuple[torch.Tensor, torch.Tensor]:
        angles = torch.outer(torch.arange(seq_len), self.frequencies).repeat(1, 2)
        return angles.cos(), angles.sin()


def _rotate(query, key, cosines, sines, positions):
    """`apply_rotary_pos_emb` with the arguments that it once had."""
    return apply_rotary_pos_emb(query, key, cosines[positions], sines[positions])


class _Attention(torch.nn.Module):
    """An official attention in a block of today: mask, positions and cache come from here."""

    def __init__(self, official: torch.nn.Module, weights: dict[str, torch.Tensor]):
        super().__init__()
        official.load_state_dict(weights)
        self.official = official
        self.past = None
        self.seen = 0

    def forward(self, hidden_states: torch.Tensor, **_) -> tuple[torch.Tensor, None]:
        positions = torch.arange(self.seen, self.seen + hidden_states.shape[1])
        self.seen += len(positions)
        output, self.weights, self.past = self.official(
            hidden_states,
            attention_mask=_mask(positions).expand(len(hidden_states), 1, -1, -1),
            position_ids=positions[None],
            past_key_value=self.past,
            output_attentions=True,
            use_cache=True,
        )
        return output, None


class _Dropping:
    """The official cache that drops tokens, and the positions of those that it still has."""

    def __init__(self, cache):
        self.cache = cache
        self.keys = torch.empty(4, 0, 16)

    def __call__(self, past, weights: torch.Tensor):
        self.keys = torch.cat([self.keys, past[0][0, :, -weights.shape[2] :]], 1)
        kept = self.cache(past, weights)
        # A key tells its position: no two are equal.
        self.positions = (kept[0][0][:, :, None] == self.keys[:, None]).all(-1).long().argmax(-1)
        return kept


def parity(folder: str) -> dict:
    """Scores, logits and the tokens that stay, by the official modules and by ours.

    Args:
        folder: a checkout of the repository.
    """
    opt = official_module(folder, "h2o_hf.utils_lm_eval.modify_opt")
    dropping, masking, oracle = (
        official_module(folder, f"h2o_hf.utils_{name}.modify_llama")
        for name in ("real_drop", "hh", "lm_eval")
    )
    for module in (dropping, masking, oracle):
        module.LlamaRotaryEmbedding = _Rotary
        module.apply_rotary_pos_emb = _rotate
    return {
        "real_drop": _compare_dropping(dropping),
        "masking_with_the_hidden_token_shown": _compare_masking(masking, shown=True),
        "masking_as_it_is": _compare_masking(masking, shown=False),
        "lm_eval_llama_last_query_of_a_prompt": _compare_last_query(oracle),
        "lm_eval_llama_as_it_is": _compare_oracle(oracle),
        "lm_eval_opt_renormalised": _compare_opt(opt, renormalised=True),
        "lm_eval_opt_as_it_is": _compare_opt(opt, renormalised=False),
    }


def dense(layer: PrunedLayer, row: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tokens a layer of ours holds, and their scores: `[kv heads, tokens read]` each.

    Args:
        layer: a layer of a pruned cache.
        row: row of the batch.
    """
    positions = layer.positions[row]
    # Empty slots are written into one more column, which is cut off.
    columns = positions.where(positions >= 0, layer.seen)
    scores = layer.scores.new_zeros(len(columns), layer.seen + 1)
    scores.scatter_(1, columns, layer.scores[row])
    # What is held has a score: its own query gave it a weight.
    return (scores > 0)[:, : layer.seen], scores[:, : layer.seen]


def compare_sets(pairs: list[tuple[torch.Tensor, torch.Tensor]], prompt: int) -> dict:
    """How many sets differ, how many of our tokens are in the official ones, and which are late.

    Args:
        pairs: masks `[heads, tokens]` of the tokens that stay, ours and the official one.
        prompt: tokens of the prompt; those after it are late.
    """
    differ = torch.cat([(ours != theirs).any(-1) for ours, theirs in pairs])
    count = sum(int(ours.sum()) for ours, _ in pairs)
    return {
        "sets": len(differ),
        "sets_differ": differ.double().mean().item(),
        "tokens_shared": sum(int((ours & theirs).sum()) for ours, theirs in pairs) / count,
        "tokens_after_the_prompt": sum(int(ours[:, prompt:].sum()) for ours, _ in pairs) / count,
    }


def _mask(positions: torch.Tensor) -> torch.Tensor:
    """What is added to the logits of queries at these positions `[n]`, the newest ones."""
    later = torch.arange(int(positions[-1]) + 1) > positions[:, None]
    return torch.zeros(later.shape).masked_fill(later, _LOWEST)


def _models(make: type, length: int = _PROMPT, recent: int = _RECENT, **changes):
    """The same tiny Llama twice, the second with official attention, and its attentions.

    Args:
        make: class of the official attention.
        length: tokens of which budgets are shares.
        recent: budget of the newest tokens.
        changes: entries of the configuration that are others.
    """
    # Weights of this size give attention that is far from uniform.
    sizes = {"max_position_embeddings": 128, "initializer_range": 0.3} | changes
    model = tiny_llama(**sizes)
    official = tiny_llama(**sizes)
    config = SimpleNamespace(**model.config.to_dict())
    config.rope_theta, config.rope_scaling, config.pretraining_tp = 10000.0, None, 1
    config.hh_size, config.recent_size = _HEAVY, recent
    # The official code rounds down.
    config.heavy_ratio, config.recent_ratio = ((n + 0.1) / length for n in (_HEAVY, recent))
    for block in official.model.layers:
        block.self_attn = _Attention(make(config), block.self_attn.state_dict())
    return model, official, [block.self_attn for block in official.model.layers]


def _compare_steps(models, state) -> dict:
    """Read a prompt and then token by token, and compare after each.

    Args:
        models: as from `_models`.
        state: tokens that stay and their scores, from an official attention.
    """
    model, official, attentions = models
    cache = H2OCache(_HEAVY + _RECENT, _RECENT)
    tokens = tiny_tokens(1, _LENGTH)
    pairs = []
    scores = []
    logits = []
    for part in (tokens[:, :_PROMPT], *tokens[:, _PROMPT:].split(1, dim=1)):
        our_logits = model(part, past_key_values=cache).logits
        logits.append(relative_difference(our_logits, official(part, use_cache=False).logits))
        for layer, attention in zip(cache.layers, attentions, strict=True):
            held, our_scores = dense(layer)
            kept, their_scores = state(attention.official)
            scores.append(relative_difference(our_scores, their_scores))
            pairs.append((held[:, :-_RECENT], kept[:, :-_RECENT]))
    differences = {"scores_difference": max(scores), "logits_difference": max(logits)}
    return differences | compare_sets(pairs, _PROMPT)


def _compare_dropping(module) -> dict:
    """The official cache that drops tokens, and what it cannot read."""
    models = _models(module.H2OLlamaAttention)
    for attention in models[2]:
        attention.official.kv_cache = _Dropping(attention.official.kv_cache)

    def state(official):
        spied = official.kv_cache
        scores = torch.zeros(spied.keys.shape[:2])
        scores.scatter_(1, spied.positions, spied.cache.hh_score)
        return scores > 0, scores

    compared = _compare_steps(models, state)
    for name, rows, kv_heads in (("batch_of_two", 2, 4), ("grouped_queries", 1, 2)):
        _, official, _ = _models(module.H2OLlamaAttention, num_key_value_heads=kv_heads)
        try:
            official(tiny_tokens(rows, _PROMPT), use_cache=False)
            compared[name] = "runs"
        except IndexError as error:
            compared[name] = str(error)
    return compared


def _compare_masking(module, shown: bool) -> dict:
    """The official attention that masks; `shown` shows what leaves the recent window at once."""

    def state(official):
        if shown:
            official.attention_masks_next[..., -_RECENT - 1] = 1
        return official.attention_masks_next[0, :, 0, :-1] > 0, official.previous_scores

    return _compare_steps(_models(module.LlamaAttention_heavy_hitter), state)


def _compare_last_query(module) -> dict:
    """The official attention that counts all queries, in the first block, which has no others."""
    make = module.LlamaAttention_heavy_hitter
    model, official, attentions = _models(make, recent=0, num_hidden_layers=1)
    tokens = tiny_tokens(1, _PROMPT)
    cache = H2OCache(_HEAVY + 1, 1)
    model(tokens, past_key_values=cache)
    official(tokens, use_cache=False)
    # It sees the heavy hitters of the prompt and itself.
    return compare_sets([(dense(cache.layers[0])[0], attentions[0].weights[0, :, -1] > 0)], _PROMPT)


def _compare_oracle(module) -> dict:
    """The official attention that counts all queries, at each token of a text."""
    model, official, attentions = _models(module.LlamaAttention_heavy_hitter, _LENGTH)
    tokens = tiny_tokens(1, _LENGTH)
    official(tokens, use_cache=False)
    cache = H2OCache(_HEAVY + _RECENT, _RECENT)
    model(tokens[:, :_PROMPT], past_key_values=cache)
    pairs = []
    for index in range(_PROMPT, _LENGTH):
        for layer, attention in zip(cache.layers, attentions, strict=True):
            seen = attention.weights[0, :, index, : index - _RECENT] > 0
            pairs.append((dense(layer)[0][:, :-_RECENT], seen))
        model(tokens[:, index : index + 1], past_key_values=cache)
    return compare_sets(pairs, _PROMPT)


def _compare_opt(module, renormalised: bool) -> dict:
    """The official attention with statistics of earlier queries; its queries have no rotation."""
    torch.manual_seed(0)
    recent = {True: 0, False: _RECENT}[renormalised]
    shares = (_HEAVY + 0.1) / _LENGTH, (recent + 0.1) / _LENGTH
    official = module.OPTAttention_Mask(64, 4, *shares, is_decoder=True)
    official.q_proj.weight.mul_(8)
    hidden = torch.randn(1, _LENGTH, 64)
    projected = (official.q_proj(hidden), official.k_proj(hidden), official.v_proj(hidden))
    tensors = [x.view(1, _LENGTH, 4, 16).transpose(1, 2) for x in projected]
    mask = _mask(torch.arange(_LENGTH))
    if renormalised:
        logits = (tensors[0] @ tensors[1].transpose(2, 3))[0] / 4 + mask
        for index in range(_HEAVY, _LENGTH):
            seen = module.local_heavy_hitter_mask(logits, _HEAVY)
            logits[:, index].masked_fill_(~seen[:, index], _LOWEST)
    else:
        _, weights, _ = official(hidden, attention_mask=mask[None, None], output_attentions=True)
        seen = weights[0] > 0
    # The official code keeps so many tokens before it chooses.
    layer = H2OCache(_HEAVY).layer_class_to_replicate()
    budget = (_HEAVY - 1 + recent, recent)
    valid = torch.ones(1, _HEAVY, dtype=torch.bool)
    with unittest.mock.patch.object(CacheBudget, "tokens", return_value=budget):
        layer.read_prompt(*(tensor[:, :, :_HEAVY] for tensor in tensors), valid, 0.25, 0)
    pairs = []
    for index in range(_HEAVY, _LENGTH):
        older = index - recent
        pairs.append((dense(layer)[0][:, :older], seen[:, index, :older]))
        token = (tensor[:, :, index : index + 1] for tensor in tensors)
        layer.decode(*token, valid[:, :1], 0.25)
    return compare_sets(pairs, _HEAVY)
