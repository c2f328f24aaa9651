"""Loading by name, saving as a plain folder, and refusing what must not be loaded."""

import copy
import json
import os

import pytest
import torch
import torch.nn.functional as F
from tests.passes.families import every_family
from tests.refusals import refused_in_one_line
from tests.whole_models import logits
from transformers import AutoModelForCausalLM, AutoTokenizer

from prunebook.errors import UserError
from prunebook.methods import prune
from prunebook.models.anatomy import sublayers
from prunebook.models.config import WIDTHS
from prunebook.models.embedded import EMBEDDED
from prunebook.models.loading import (
    load_model,
    resolve_device,
    resolve_dtype,
    save_model,
)
from prunebook.models.surgery import keep_neurons, sync_config

CPU = torch.device("cpu")


@pytest.fixture
def saved(make_model, word_tokenizer, tmp_path):
    return save_model(make_model("llama"), word_tokenizer, tmp_path / "saved")


@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
@every_family
def test_a_saved_model_reloads_with_equal_logits(
    make_model, word_tokenizer, tokens, tmp_path, family, method
):
    model = make_model(family)
    prune(model, method, calibration=tokens, pattern="2:4")
    expected = logits(model, tokens)
    path = save_model(model, word_tokenizer, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(path).eval()
    assert torch.equal(logits(plain, tokens), expected)
    again, _ = load_model(path, device="cpu")
    assert torch.equal(logits(again, tokens), expected)
    assert not again.training
    assert again.prunebook_source == str(path)


def test_the_tokenizer_is_saved_with_its_model(saved):
    assert AutoTokenizer.from_pretrained(saved)("w7 w42 unknown")["input_ids"] == [7, 42, 99]
    assert load_model(saved, device="cpu")[1]("w8")["input_ids"] == [8]


def test_the_recipe_is_saved_beside_the_weights(make_model, word_tokenizer, tokens, tmp_path):
    model = make_model("llama")
    model.prunebook_source = "where it came from"
    report = prune(model, "wanda", calibration=tokens, sparsity=0.5)
    prune(model, "magnitude", sparsity=0.6)
    path = save_model(model, word_tokenizer, tmp_path / "model", measured={"perplexity": 12.5})
    recipe = json.loads((path / "prunebook.json").read_text())
    assert recipe["source"] == "where it came from"
    assert recipe["recipe"][0] == json.loads(json.dumps(report.to_dict()))
    assert [step["method"] for step in recipe["recipe"]] == ["wanda", "magnitude"]
    assert recipe["measured"] == {"perplexity": 12.5}
    assert recipe["versions"]["torch"] == torch.__version__
    assert set(recipe["versions"]) == {"prunebook", "torch", "transformers"}
    assert sorted(os.listdir(tmp_path)) == ["model"]


def test_a_narrow_dtype_survives(make_model, word_tokenizer, tokens, tmp_path):
    wide = save_model(make_model("llama"), word_tokenizer, tmp_path / "wide")
    model = load_model(wide, device="cpu", dtype="bf16")[0]
    path = save_model(model, word_tokenizer, tmp_path / "narrow")
    assert load_model(path, device="cpu")[0].dtype == torch.float32  # `auto` on the CPU
    again = load_model(path, device="cpu", dtype="bfloat16")[0]
    assert again.dtype == torch.bfloat16
    assert torch.equal(logits(again, tokens), logits(model, tokens))


def test_a_folder_of_ours_is_replaced_and_a_foreign_one_is_not(
    saved, make_model, word_tokenizer, tmp_path
):
    other = make_model("gpt2")
    save_model(other, word_tokenizer, saved)
    assert json.loads((saved / "config.json").read_text())["model_type"] == "gpt2"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    save_model(other, word_tokenizer, foreign)  # empty: fine
    (foreign / "prunebook.json").unlink()
    before = sorted(os.listdir(foreign))
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (foreign, file):
        with pytest.raises(UserError, match=f"{path} exists and was not written by prunebook"):
            save_model(other, word_tokenizer, path)
    assert sorted(os.listdir(foreign)) == before
    assert file.read_text() == "mine"


def test_a_full_disk_leaves_nothing_half_written(
    saved, make_model, word_tokenizer, tmp_path, full_disk
):
    old = (saved / "config.json").read_bytes()
    model = make_model("gpt2")  # its weights need 100 kB
    for path in (saved, tmp_path / "new"):
        with full_disk(40_000), refused_in_one_line(f"^cannot write {path}: "):
            save_model(model, word_tokenizer, path)
    assert sorted(os.listdir(tmp_path)) == ["saved"]
    assert (saved / "config.json").read_bytes() == old


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        load_model(path, device="cpu")
    assert "\n" not in str(caught.value)
    assert f"use {', '.join(EMBEDDED)}, a local folder with safetensors" in str(caught.value)


def test_pickled_weights_are_refused(saved, make_model):
    (saved / "model.safetensors").unlink()
    torch.save(make_model("llama").state_dict(), saved / "pytorch_model.bin")
    refused(saved, r"cannot be loaded \(.*safetensors")


def test_remote_code_is_refused_and_not_run(saved):
    config = json.loads((saved / "config.json").read_text())
    config |= {
        "model_type": "theirs",
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    }
    (saved / "config.json").write_text(json.dumps(config))
    (saved / "code.py").write_text(
        f"open({str(saved / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    )
    refused(saved, "cannot be loaded")
    assert not (saved / "ran").exists()


def test_damaged_weights_are_refused(saved):
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(saved, "cannot be loaded")


def test_a_damaged_configuration_is_refused(saved):
    (saved / "config.json").write_text("{")
    refused(saved, "cannot be loaded")


def uneven(make_model):
    """A model whose blocks have 48, 20 and 48 neurons."""
    model = make_model("llama")
    keep_neurons(sublayers(model.model.layers[1]), range(20))
    sync_config(model)
    return model


def test_widths_survive_the_recipe_and_a_second_method(
    make_model, word_tokenizer, tokens, tmp_path
):
    model = uneven(make_model)
    prune(model, "wanda", calibration=tokens, sparsity=0.5)
    path = save_model(model, word_tokenizer, tmp_path / "model")
    again, _ = load_model(path, device="cpu")
    assert torch.equal(logits(again, tokens), logits(model, tokens))
    assert json.loads((path / "config.json").read_text())[WIDTHS]["neurons"] == [48, 20, 48]
    assert type(again).__module__ == type(model).__module__
    torch.testing.assert_close(logits(copy.deepcopy(again), tokens), logits(model, tokens))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c[WIDTHS]["heads"].pop(),
        lambda c: c[WIDTHS].pop("neurons"),
        lambda c: c[WIDTHS].update(kv_heads=[0] * 3),
        lambda c: c[WIDTHS].update(neurons=[99] * 3),
        lambda c: c.update({WIDTHS: 7}),
        lambda c: c.update({WIDTHS: None}),
        lambda c: c.update(architectures=["load_model"]),
        lambda c: c.update(architectures=None),
        lambda c: c.update(architectures=["PreTrainedModel"]),
        lambda c: c[WIDTHS].update(heads=["4", "4", "4"]),
    ],
)
def test_damaged_widths_are_refused(make_model, word_tokenizer, tmp_path, change):
    path = save_model(uneven(make_model), word_tokenizer, tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))
    refused(path, f"model '{path}' cannot be loaded")


@pytest.mark.parametrize(
    "name", ["smollm3-999b", "nobody/nothing", "/no/such/folder", "", "not a name!"]
)
def test_a_name_that_nothing_has_is_refused(name):
    refused(name, f"model {name!r} cannot be loaded")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps", "meta", "cpu0"])
def test_an_impossible_device_is_refused(device):
    with pytest.raises(UserError, match=f"device '{device}' is"):
        load_model("smollm2-135m", device=device)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UserError, match="dtype 'int4' is unknown; use 'auto', 'float32'"):
        load_model("smollm2-135m", device="cpu", dtype="int4")


def test_dtypes_follow_the_device():
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert resolve_dtype("fp16", CPU) == resolve_dtype(torch.float16, CPU) == torch.float16
    assert resolve_device("cpu") == CPU
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_embedded_model_speaks_english(embedded):
    model, tokenizer = embedded
    assert (model.dtype, model.device.type, model.training) == (torch.float32, "cpu", False)
    assert model.num_parameters() == 134_515_008
    assert model.config.num_hidden_layers == 30
    assert model.prunebook_source == "smollm2-135m"
    prompt = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(logits(model, prompt)[0, -1].argmax()) == " Paris"


def test_the_embedded_encoder_tells_near_from_far():
    model, tokenizer = load_model("minilm-l6", device="cpu")
    assert model.config.hidden_size == 384
    texts = [
        "A cat sits on the mat.",
        "A kitten is lying on a rug.",
        "Interest rates rose by a quarter point.",
    ]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    vectors = F.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_a_new_classifier_on_the_embedded_encoder(tmp_path):
    torch.manual_seed(0)
    model, tokenizer = load_model("minilm-l6", device="cpu", classes=3)
    assert type(model).__name__ == "BertForSequenceClassification"
    body, _ = load_model("minilm-l6", device="cpu")
    weights = model.bert.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in body.state_dict().items())
    again, _ = load_model(save_model(model, tokenizer, tmp_path / "saved"), device="cpu")
    inputs = tokenizer("A sentence to tell where it comes from.", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    assert again.config.num_labels == 3


@pytest.mark.parametrize("classes", [0, -1, 1, 2.5, True])
def test_a_classifier_needs_two_classes(classes):
    with pytest.raises(
        UserError, match=f"classes {classes!r} is not allowed; use a whole number >= 2"
    ):
        load_model("minilm-l6", device="cpu", classes=classes)


def test_what_is_a_classifier_gets_no_other_head(make_classifier, word_tokenizer, tmp_path):
    path = save_model(make_classifier(), word_tokenizer, tmp_path / "model")
    for classes in (3, 5):
        with pytest.raises(
            UserError, match=f"^model '{path}' is a classifier of 5 classes; leave classes out$"
        ):
            load_model(path, device="cpu", classes=classes)


def test_a_classifier_on_an_encoder_of_uneven_widths(
    make_classifier, word_tokenizer, tokens, tmp_path
):
    body = make_classifier().bert
    keep_neurons(sublayers(body.encoder.layer[1]), range(20))
    sync_config(body)
    path = save_model(body, word_tokenizer, tmp_path / "model")
    model, _ = load_model(path, device="cpu", classes=3)
    assert type(model) is type(make_classifier())
    assert logits(model, tokens).shape == (7, 3)
    assert sublayers(model.bert.encoder.layer[1]).neurons == 20
    weights = model.bert.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in body.state_dict().items())
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "again"), device="cpu")
    assert torch.equal(logits(again, tokens), logits(model, tokens))
