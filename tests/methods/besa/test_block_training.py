"""The loss of a block by hand, its penalty, and what a step of training moves."""

import pytest
import torch

from prunebook.methods.besa.block_training import block_loss, penalised_loss, train_rates
from prunebook.methods.besa.learned_sparsity import LearnedRates
from prunebook.models.anatomy import weight_of
from prunebook.passes.sequential import walk


def rates_of(block, granularity="row"):
    weights = {name: weight_of(linear) for name, linear in block.linears.items()}
    scores = {name: weight.abs() for name, weight in weights.items()}
    return LearnedRates(scores, weights, granularity, sigmoid=False)


def test_the_loss_by_hand():
    reference = torch.tensor([[[3.0, 0, 0.3], [4, 0, 0.4]]])  # norms 5, 0 and 1/2
    output = torch.tensor([[[3.0, 2, 0.3], [3, 0, 0.9]]])
    assert block_loss(output, reference).item() == pytest.approx((1 / 25 + 4 + 1) / 3)
    assert block_loss(output.bfloat16(), reference.bfloat16()).dtype == torch.float32


def test_nothing_removed_leaves_the_penalty_alone(make_model, tokens):
    block = next(walk(make_model("llama"), tokens))
    learned = rates_of(block)
    # The last candidate, a rate of 0, gets all of the mixture.
    learned.theta.data[:, 100] = 50
    reference = block.run(block.hidden[:1]).detach()
    loss = penalised_loss(block, learned, block.hidden[:1], reference, 0.5, 3.0)
    assert loss.item() == pytest.approx(3.0, abs=1e-5)  # lambda ((0 - s) / s)^2


@pytest.mark.parametrize(
    ("granularity", "epochs", "distance"), [("row", 1, 0.1), ("layer", 4, 0.15)]
)
def test_training_brings_the_mean_rate_to_the_target(make_model, granularity, epochs, distance):
    many = torch.randint(100, (40, 16), generator=torch.Generator().manual_seed(2))
    block = next(walk(make_model("llama"), many, batch_size=1))
    learned = rates_of(block, granularity)
    before = {name: weight.clone() for name, weight in learned.weights.items()}
    with torch.no_grad():
        reference = torch.cat([block.run(inputs) for inputs in block.hidden.split(1)])
    train_rates(block, learned, reference, sparsity=0.3, penalty=50.0, epochs=epochs)
    _, rate = learned.masked()
    assert abs(rate.item() - 0.3) < distance  # it starts at one half
    # Nothing but theta is trained.
    assert all(torch.equal(learned.weights[name], weight) for name, weight in before.items())
