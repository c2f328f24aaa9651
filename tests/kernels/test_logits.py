"""Logits beside a reference: worked by hand, against float64, and by the kernel in Triton's
interpreter."""

import json
import math
import re

import pytest
import torch
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton

from prunebook.errors import UserError
from prunebook.kernels import logits as module
from prunebook.kernels.logits import compare_logits, compare_logits_reference, launch_compare

# of what is not chosen
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
IMPLEMENTATIONS = [compare_logits_reference, pytest.param(launch_compare, marks=needs_triton)]


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 16)


def in_float64(logits, targets, reference):
    log_p, log_q = (x.double().log_softmax(1) for x in (reference, logits))
    nll = -log_q.gather(1, targets[:, None]).squeeze(1)
    return nll, torch.where(log_p.exp() == 0, 0, log_p.exp() * (log_p - log_q)).sum(1)


@pytest.mark.parametrize("compare", IMPLEMENTATIONS)
def test_by_hand(compare):
    """p = (1/2, 1/4, 1/4) beside q = (1/4, 1/4, 1/2): KL = 1/2 ln 2 - 1/4 ln 2."""
    logits = torch.tensor([[1.0, 1, 2], [4, 4, 2]], device=DEVICE).log()
    reference = torch.tensor([[2.0, 1, 1], [2, 2, 1]], device=DEVICE).log()
    found = compare(logits, torch.tensor([2, 0], device=DEVICE), reference)
    assert found.nll.tolist() == pytest.approx([math.log(2), math.log(2.5)], rel=1e-6)
    assert found.kl.tolist() == pytest.approx([math.log(2) / 4, 0], abs=1e-7)
    assert found.agrees.tolist() == [False, True]


@pytest.mark.parametrize("compare", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("vocabulary", "scale"), [(7, 1), (49, 30), (49, 1e4), (32, 5), (1, 1)])
def test_close_to_float64(compare, dtype, vocabulary, scale):
    """Within 1e-4 nats, or 1e-6 of it where it is large; never below zero by more than rounding."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(5, vocabulary, generator=generator) * scale
    reference = (
        (logits + torch.randn(5, vocabulary, generator=generator) * scale**0.5).to(dtype).to(DEVICE)
    )
    targets = torch.arange(5, device=DEVICE) % vocabulary
    logits = logits.to(dtype).to(DEVICE)
    found, (nll, kl) = compare(logits, targets, reference), in_float64(logits, targets, reference)
    assert found.kl.tolist() == pytest.approx(kl.tolist(), rel=1e-6, abs=1e-5)
    assert found.nll.tolist() == pytest.approx(nll.tolist(), rel=1e-6, abs=1e-5)
    assert min(found.kl) >= -1e-6
    assert torch.equal(found.agrees, logits.argmax(1) == reference.argmax(1))
    alone = compare(logits, targets, None)
    assert torch.equal(alone.nll, found.nll)
    assert alone.kl is alone.agrees is None


@pytest.mark.parametrize("compare", IMPLEMENTATIONS)
def test_equal_logits_diverge_by_exactly_nothing(compare):
    logits = (torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) * 100).to(DEVICE)
    # in two tiles: the first counts, on both sides
    logits[1, 3] = logits[1, 40] = logits[1].max() + 1
    found = compare(logits, torch.zeros(4, dtype=torch.int64, device=DEVICE), logits.clone())
    assert found.kl.tolist() == [0] * 4
    assert found.agrees.all()


@pytest.mark.parametrize("compare", IMPLEMENTATIONS)
def test_words_that_are_impossible(compare):
    """Impossible for both: nothing. For the reference alone: finite. For the model alone:
    infinite."""
    logits = torch.zeros(3, 40, device=DEVICE)
    reference = torch.zeros(3, 40, device=DEVICE)
    logits[0, :20] = reference[0, :20] = reference[1, 5] = logits[2, 6] = -torch.inf
    found = compare(logits, torch.full((3,), 30, device=DEVICE), reference)
    assert found.kl.tolist() == pytest.approx([0, math.log(40 / 39), math.inf], abs=1e-6)
    assert found.nll.tolist() == pytest.approx([math.log(20), math.log(40), math.log(39)], rel=1e-6)


@pytest.mark.parametrize("compare", IMPLEMENTATIONS)
def test_strided_logits_and_inputs_left_alone(compare):
    store = torch.randn(6, 80, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    before = store.clone()
    targets = torch.tensor([[0, 20, 39, 3, 4, 5], [9] * 6], device=DEVICE).T[:, 0]
    found = compare(store[:, ::2], targets, store[:, 1::2])
    nll, kl = in_float64(store[:, ::2], targets, store[:, 1::2])
    assert found.kl.tolist() == pytest.approx(kl.tolist(), rel=1e-5)
    assert found.nll.tolist() == pytest.approx(nll.tolist(), rel=1e-5)
    assert torch.equal(store, before)


@pytest.mark.parametrize("compare", IMPLEMENTATIONS)
def test_tokens_without_a_target_cost_nothing(compare):
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    found = compare(logits, torch.tensor([4, -100, 7], device=DEVICE), None)
    expected = -logits.double().log_softmax(1)
    assert found.nll.tolist() == pytest.approx(
        [expected[0, 4].item(), 0, expected[2, 7].item()], rel=1e-6
    )


@pytest.mark.parametrize("compare", IMPLEMENTATIONS)
def test_what_an_unlikely_word_weighed_is_forgotten(compare):
    """The first words are impossible for the model and all but impossible for the reference."""
    logits = torch.zeros(1, 40, device=DEVICE)
    reference = torch.zeros(1, 40, device=DEVICE)
    logits[0, :16], reference[0, :16] = -torch.inf, -200
    found = compare(logits, torch.tensor([20], device=DEVICE), reference)
    assert found.kl.tolist() == pytest.approx([0], abs=1e-6)


def test_no_tokens():
    found = compare_logits(torch.empty(0, 9), torch.empty(0, dtype=torch.int64), torch.empty(0, 9))
    assert [len(one) for one in (found.nll, found.kl, found.agrees)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("logits", "targets", "reference", "message"),
    [
        ((2, 3, 4), (2,), None, "logits have shape [2, 3, 4]; use [tokens, vocabulary]"),
        ((2, 0), (2,), None, "logits have shape [2, 0]; use [tokens, vocabulary]"),
        ((2, 4), (3,), None, "targets has shape [3]; logits [2, 4] need [2]"),
        ((2, 4), (2,), (2, 5), "reference has shape [2, 5]; logits [2, 4] need [2, 4]"),
    ],
)
def test_bad_shapes(logits, targets, reference, message):
    reference = None if reference is None else torch.ones(reference)
    with pytest.raises(UserError, match=re.escape(message)):
        compare_logits(torch.ones(logits), torch.zeros(targets, dtype=torch.int64), reference)


@needs_triton
def test_compiled_for_hopper_without_spilling():
    printed = compile_apart(
        """
import json, torch
from prunebook.kernels.logits import launch_compare
with compiled_for() as found:
    for vocabulary, dtype in (
        (32000, torch.bfloat16), (49152, torch.float32), (128256, torch.bfloat16)
    ):
        logits = torch.ones(2, vocabulary, dtype=dtype)
        targets = torch.zeros(2, dtype=torch.int64)
        launch_compare(logits, targets, logits)
        launch_compare(logits, targets, None)
print(json.dumps([(one.stack, "ld.global.v4" in one.ptx) for one in found]))
"""
    )
    assert json.loads(printed.splitlines()[-1]) == [[0, True]] * 6
