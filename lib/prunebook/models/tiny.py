"""A small Llama and its tokenizer, both new, from a seed."""

from pathlib import Path

import tokenizers
import torch
import transformers

from ..data.corpora import text_of
from ..errors import UserError
from ..validation import check_whole

END = "<|endoftext|>"

# Words that a vocabulary has before anything is merged: one for each byte.
_BYTES = 256


def train_tokenizer(
    vocabulary: int = 2048, text: str | Path | None = None
) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the training text; the same text gives the same words.

    Args:
        vocabulary: number of words, the 256 bytes and the end of a text (id 0) among them.
        text: see `corpora.text_of`.

    Raises:
        UserError: too few words for the bytes, more than the text yields, or text that cannot be
            read.
    """
    check_whole("vocabulary", vocabulary, _BYTES + 1, 2048)
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator(text_of("training", text).splitlines(keepends=True), trainer)
    if core.get_vocab_size() < vocabulary:
        raise UserError(
            f"vocabulary {vocabulary} is more than the text yields; use at most "
            f"{core.get_vocab_size()}"
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=END, eos_token=END)


def small_llama(
    vocabulary: int = 2048,
    *,
    hidden: int = 192,
    blocks: int = 4,
    heads: int = 6,
    neurons: int = 512,
    length: int = 512,
    seed: int = 0,
) -> transformers.LlamaForCausalLM:
    """A new model of Llama's architecture in evaluation mode, float32 on the CPU, embedding and
    head tied.

    Args:
        vocabulary: words.
        hidden: hidden channels.
        blocks: decoder blocks.
        heads: query heads of a block, each with its own key-value head.
        neurons: MLP neurons of a block.
        length: positions.
        seed: seed of the weights; torch's own random state stays as it is.

    Raises:
        UserError: a size that is no whole number of 1 or more, or a width that heads of even size
            do not divide.
    """
    others = {"vocabulary": vocabulary, "blocks": blocks, "neurons": neurons, "length": length}
    _check_sizes(hidden=hidden, heads=heads, **others)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=neurons,
        max_position_embeddings=length,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        # transformers' 0.02 is for wide models; a narrow one would start too slowly with it
        initializer_range=hidden**-0.5,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config).eval()
    size = f"{model.num_parameters() / 1e6:.1f} M parameters, {vocabulary} words"
    model.prunebook_source = f"new Llama, {blocks} x {hidden}, {size}"
    return model


def _check_sizes(*, hidden: int, heads: int, **others: int) -> None:
    for name, value in (others | {"hidden": hidden, "heads": heads}).items():
        check_whole(name, value, 1)
    # Rotary positions turn pairs of channels, so that the size of a head is even.
    if hidden % (2 * heads):
        raise UserError(
            f"hidden {hidden} is not {heads} heads of even size; use a multiple of {2 * heads}"
        )
