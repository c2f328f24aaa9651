"""Angles between states of the residual stream: by hand, against a double loop, and where they are
taken."""

import math

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.deeper_layers.angular import angular_distances, best_run, last_token_states


def test_angles_by_hand():
    states = torch.tensor([[[1.0, 0]], [[1, math.sqrt(3)]], [[0, 5]], [[-2, 0]]])
    expected = torch.tensor(
        [[0, 1 / 3, 1 / 2, 1], [0, 0, 1 / 6, 2 / 3], [0, 0, 0, 1 / 2], [0, 0, 0, 0]]
    )
    expected = (expected + expected.T).double()
    torch.testing.assert_close(angular_distances(states), expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(
        angular_distances(states * torch.tensor([3.0, 0.1, 7, 2]).view(4, 1, 1)),
        expected,
        atol=1e-7,
        rtol=0,
    )


def test_it_is_the_mean_of_angles_over_windows():
    states = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0))
    found = angular_distances(states)
    for low in range(5):
        for high in range(5):
            cosines = torch.cosine_similarity(
                states[low].double(), states[high].double(), dim=-1
            ).clamp(-1, 1)
            assert found[low, high].item() == pytest.approx(
                (cosines.arccos() / math.pi).mean().item(), abs=1e-7
            )
    assert torch.equal(found.diagonal(), torch.zeros(5, dtype=torch.float64))


def test_tiny_angles_keep_their_digits():
    angle = 1e-5  # its cosine differs from 1 by 5e-11: in float32 by nothing
    states = torch.tensor([[[1.0, 0]], [[1.0, math.tan(angle)]]])
    assert angular_distances(states)[0, 1].item() == pytest.approx(angle / math.pi, rel=1e-6)


@pytest.mark.parametrize(("count", "start"), [(1, 2), (2, 1), (3, 0)])
def test_the_best_run_is_the_lowest_of_its_length(count, start):
    d = torch.tensor([[0, 5, 9, 1], [0, 0, 7, 4], [0, 0, 0, 2], [0, 0, 0, 0.0]])
    assert best_run(d + d.T, count) == start
    assert best_run(torch.zeros(4, 4), count) == 0  # ties


@pytest.mark.parametrize("family", ["llama", "mistral", "opt", "gpt2"])
def test_states_are_the_residual_stream_before_the_final_norm(make_model, tokens, family):
    model = make_model(family)
    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)
    seen = []
    handles = [
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1]))
        for block in stack
    ]
    handles.append(
        stack[-1].register_forward_hook(
            lambda _, inputs, output: seen.append(
                (output[0] if isinstance(output, tuple) else output)[:, -1]
            )
        )
    )
    with torch.no_grad():
        model(input_ids=tokens)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(last_token_states(model, tokens), torch.stack(seen))


def test_states_that_are_not_finite_are_refused(make_model, tokens):
    model = make_model("llama")
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(UserError, match="residual stream holds NaN or infinity"):
        last_token_states(model, tokens)
