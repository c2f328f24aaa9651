"""The package's front: names load on first use, and reading it costs no torch."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import prunebook as pb


def test_every_public_name_is_there():
    for name in pb.__all__:
        assert getattr(pb, name) is not None
    assert set(pb.__all__) == set(dir(pb))


def lazy_packages() -> list[str]:
    """The packages of the library with names that load on first use."""
    root = Path(pb.__file__).parent
    files = [file for file in root.rglob("__init__.py") if "\ndef __getattr__(" in file.read_text()]
    return sorted(".".join(file.relative_to(root.parent).parent.parts) for file in files)


def test_the_packages_with_lazy_names_are_known():
    names = ["prunebook", *(f"prunebook.{room}" for room in ("caches", "methods", "models"))]
    assert lazy_packages() == names


def test_packages_list_their_lazy_names_before_they_load():
    """In one process, because loading the names takes seconds."""
    code = (
        "import importlib\n"
        f"packages = [importlib.import_module(name) for name in {lazy_packages()}]\n"
        "for package in packages:\n"
        "    assert set(package.__all__) | set(package.EXPORTS) <= set(dir(package)), package\n"
        "for package in packages:\n"
        "    assert all(hasattr(package, name) for name in dir(package)), package\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_names_are_what_their_modules_define():
    from prunebook.data.windows import calibration_tokens
    from prunebook.measure.zeros import verify
    from prunebook.methods import prune

    assert pb.prune is prune
    assert pb.verify is verify
    assert pb.calibration_tokens is calibration_tokens
    assert pb.methods.Wanda(sparsity=0.5).target.sparsity == 0.5


def test_names_of_before_the_rooms_still_work(make_model):
    assert pb.patterns.keep_mask is pb.sparsity.patterns.keep_mask
    assert pb.patterns.verify is pb.verify
    assert pb.finetune.lora is pb.recovery.finetune.lora
    assert pb.caches.compare is pb.caches.compare_caches
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    assert pb.measure(make_model("llama"), tokens).tokens == 6
    with pytest.raises(AttributeError, match=r"module 'prunebook.patterns' has no attribute 'no'"):
        _ = pb.patterns.no


@pytest.mark.parametrize(
    "line",
    [
        "from prunebook.patterns import NofM, keep_mask",
        "import prunebook.blocks as blocks; blocks.walk",
        "from prunebook.methods.engine import prune, make_method",
        "from prunebook.criteria import fisher; fisher.damped_inverse",
        "from prunebook.methods.besa import BESA",
        "from prunebook.methods.sparsegpt import sparsegpt_update",
        "from prunebook.kernels.n_of_m import select_n_of_m",
        "import pickle; pickle.loads(b'cprunebook.patterns\\nUnstructured\\n.')",
    ],
)
def test_old_imports_still_work(line):
    exec(line, {})


def test_what_looks_through_all_modules_imports_nothing():
    code = (
        "import sys, inspect, prunebook\n"
        "[getattr(module, '__file__', None) for module in list(sys.modules.values())]\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("name", sorted(pb.MOVED))
def test_the_modules_that_hold_moved_names_exist(name):
    for place in pb.MOVED[name]:
        assert importlib.util.find_spec(f"prunebook.{place}") is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'prunebook' has no attribute 'nothing'"):
        _ = pb.nothing


@pytest.mark.parametrize(
    "module",
    [
        "prunebook",
        "prunebook.catalog",
        "prunebook.site",
        "prunebook.notebook.claims",
        "prunebook.cli.main",
    ],
)
def test_reading_the_book_needs_no_torch(module):
    code = f"import sys, {module}; sys.exit(len({{'torch', 'transformers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_whole_way_from_text_to_measured_quality(make_model, word_tokenizer, tmp_path, cache):
    text = tmp_path / "text.txt"
    text.write_text(
        "\n".join(
            " ".join(f"w{(7 * n + 3 * n * n) % 100}" for n in range(i, i + 20)) for i in range(100)
        )
    )
    calibration = pb.calibration_tokens(word_tokenizer, samples=8, length=16, seed=0, text=text)
    held_out = pb.evaluation_tokens(word_tokenizer, windows=6, length=16, text=text)
    model = make_model("llama")
    dense = pb.dense_baseline(model, held_out)
    report = pb.prune(model, "wanda", pattern="2:4", calibration=calibration)
    measured = pb.measure_quality(model, held_out, dense)
    assert report.sparsity == pb.verify(model, "2:4").sparsity == 0.5
    assert measured.kl > 0
    path = pb.save_model(model, word_tokenizer, tmp_path / "pruned", measured=measured.to_dict())
    again, _ = pb.load_model(path, device="cpu")
    assert pb.verify(again, "2:4").holds
    assert pb.perplexity(again, held_out) == pytest.approx(measured.perplexity, rel=1e-6)


@pytest.mark.parametrize("same", [True, False])
def test_the_same_seed_gives_the_same_mask(make_model, word_tokenizer, tmp_path, same):
    text = tmp_path / "text.txt"
    text.write_text(
        "\n".join(" ".join(f"w{(n * n + i) % 100}" for n in range(20)) for i in range(200))
    )
    masks = []
    for seed in (0, 0 if same else 1):
        model = make_model("llama")
        tokens = pb.calibration_tokens(word_tokenizer, samples=8, length=16, seed=seed, text=text)
        pb.prune(model, "wanda", sparsity=0.5, calibration=tokens)
        masks.append([bool(x) for x in (model.model.layers[2].mlp.down_proj.weight == 0).flatten()])
    assert (masks[0] == masks[1]) is same
