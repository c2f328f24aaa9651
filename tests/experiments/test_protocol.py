"""What protocols say of weights, windows and devices."""

import torch

from prunebook.experiments.protocol import comparison_protocol, device_name, model_protocol
from prunebook.measure.baseline import dense_baseline


def test_protocol_says_that_windows_begin_with_bos(make_model):
    model = make_model("llama")
    plain = torch.randint(3, 100, (4, 16), generator=torch.Generator().manual_seed(0))
    after_bos = plain.clone()
    after_bos[:, 0] = model.config.bos_token_id = 1
    for held_out, opening in ((plain, ""), (after_bos, ", each after BOS")):
        dense = dense_baseline(model, held_out, "exact")
        protocol = comparison_protocol(model, [plain] * 2, held_out, dense, False, 8)
        assert protocol["evaluation"] == f"4 x 16 tokens, windows without overlap{opening}"
        assert (protocol["calibration"], protocol["seeds"]) == ("4 x 16 tokens", 2)


def test_protocol_says_what_the_embedded_weights_are(make_model):
    model = make_model("llama")
    assert "weights" not in model_protocol(model)
    model.prunebook_source = "smollm2-135m"
    weights = "SmolLM2-135M-Instruct, dequantised from a 4-bit file"
    assert model_protocol(model)["weights"] == weights


def test_the_cpu_is_named_with_its_threads():
    threads = torch.get_num_threads()
    expected = {1: "CPU, 1 thread"}.get(threads, f"CPU, {threads} threads")
    assert device_name(torch.device("cpu")) == expected
