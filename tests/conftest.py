"""Tiny random models of six families and a word tokenizer: no network, no large file."""

import contextlib
import itertools
import os
import resource

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers and datasets read it
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton decorates a kernel

import pytest

VOCABULARY = 100


def build_model(family: str, seed: int = 0, **changes):
    """A random causal model in evaluation mode: width 32, three blocks, grouped queries where they
    exist.

    Weights are ten times larger than the families' defaults, so that pruning visibly changes the
    logits.
    """
    import torch
    import transformers as tf

    special = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    like_llama = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    }
    configs = {
        "llama": lambda: tf.LlamaConfig(**special | like_llama | changes),
        "mistral": lambda: tf.MistralConfig(
            **special | like_llama | {"sliding_window": 8} | changes
        ),
        "qwen2": lambda: tf.Qwen2Config(**special | like_llama | changes),
        "qwen3": lambda: tf.Qwen3Config(**special | like_llama | changes),
        "opt": lambda: tf.OPTConfig(
            **special
            | {
                "hidden_size": 32,
                "ffn_dim": 64,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "max_position_embeddings": 64,
                "word_embed_proj_dim": 32,
                "init_std": 0.2,
                "pad_token_id": 2,
            }
            | changes
        ),
        "gpt2": lambda: tf.GPT2Config(
            **special
            | {
                "n_embd": 32,
                "n_layer": 3,
                "n_head": 4,
                "n_positions": 64,
                "initializer_range": 0.2,
            }
            | changes
        ),
    }
    torch.manual_seed(seed)
    return tf.AutoModelForCausalLM.from_config(configs[family]()).eval()


@pytest.fixture
def make_model():
    """`make_model(family, seed=0, **config)`: a new tiny model, the caller's own to change."""
    return build_model


@pytest.fixture
def make_classifier():
    """`make_classifier(seed=0, **config)`: a new tiny BERT with a head of five classes, its weights
    made large, too."""
    import torch
    import transformers as tf

    def make(seed: int = 0, **changes):
        torch.manual_seed(seed)
        settings = {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "num_labels": 5,
            "initializer_range": 0.2,
        }
        return tf.BertForSequenceClassification(tf.BertConfig(**settings | changes)).eval()

    return make


@pytest.fixture
def other_work(monkeypatch):
    """`other_work(*cores)`: let sections that are timed last 10 s, each with so many cores' worth
    of other work.

    The last number is that of all sections that follow. So no test depends on what else the machine
    does.
    """
    from prunebook.notebook import contention

    def readings(cores):
        now = contention.Counters(0.0, 0.0, 0.0, 0.0, 2)
        for share in itertools.chain(cores, itertools.repeat(cores[-1])):
            yield now
            now = contention.Counters(
                now.wall + 10, now.busy + 10 + 10 * share, 0.0, now.own + 10, 2
            )
            yield now

    def set_other_work(*cores):
        source = readings(cores)
        monkeypatch.setattr(contention, "read_counters", lambda: next(source))

    return set_other_work


@pytest.fixture(scope="session")
def tokens():
    """Seven windows of 16 token ids: no multiple of the batch sizes used."""
    import torch

    return torch.randint(VOCABULARY, (7, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def word_tokenizer():
    """A tokenizer whose words `w0`..`w99` have the ids 0..99; any other word is 99."""
    import tokenizers
    import transformers

    words = {f"w{i}": i for i in range(VOCABULARY)}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w99"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="w99", eos_token="w1"
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of its own."""
    monkeypatch.setenv("PRUNEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def full_disk():
    """`with full_disk(bytes):` no file can grow beyond that; hold it for the write alone, test logs
    are files too."""

    @contextlib.contextmanager
    def limit(size: int):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limit


@pytest.fixture(scope="session")
def embedded():
    """The embedded model with its tokenizer, in float32 on the CPU; not to be changed."""
    from prunebook.models.loading import load_model

    return load_model("smollm2-135m", device="cpu")


# A library of the real one's shape, for what reads sources: file -> text.
LIBRARY_FILES = {
    "__init__.py": "EXPORTS = {'prune': 'methods.prune', 'claim': 'notebook.claims', "
    "'lazy': 'lazy'}\n"
    'MOVED = {"patterns": ("sparsity.patterns",)}\n',
    "errors.py": "class UserError(ValueError): ...\n",
    "sparsity/__init__.py": "",
    "sparsity/patterns.py": "from ..errors import UserError\n",
    "notebook/__init__.py": "",
    "notebook/claims.py": "import math\n",
    "lazy.py": "def f():\n    from prunebook.deep import inner\n",
    "unused.py": "x = 1\n",
    "deep/__init__.py": "from . import helper\n",
    "deep/inner.py": "import prunebook.sparsity.patterns\n",
    "deep/helper.py": "",
    "methods/__init__.py": "from .. import load_export\nfrom .prune import prune\n"
    'EXPORTS = {"compare": "unused"}\n',
    "methods/registry.py": 'REGISTRY = {\n    "magnitude": ("essential_sparsity", "Magnitude"),\n'
    '    "wanda": ("wanda", "Wanda"),\n    "sparsegpt": ("sparsegpt", "SparseGPT"),\n}\n',
    "methods/prune.py": "from ..errors import UserError\n",
    "methods/essential_sparsity.py": "from ..sparsity.patterns import select\n",
    "methods/wanda.py": "from ..sparsity import patterns\nfrom .essential_sparsity import helper\n",
    "methods/sparsegpt.py": "",
}


@pytest.fixture
def package(tmp_path):
    """The folder of a small library whose sources can be read, and changed."""
    folder = tmp_path / "prunebook"
    for name, text in LIBRARY_FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
