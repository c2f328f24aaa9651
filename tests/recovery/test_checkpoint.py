"""Checkpoints: a broken run goes on with the same result, and another run's file is refused."""

import copy
import inspect

import pytest
import torch
from tests.interrupting import interrupted_at

from prunebook.errors import UserError
from prunebook.passes.backward import next_token_loss
from prunebook.recovery.checkpoint import Checkpoint
from prunebook.recovery.finetune import lora
from prunebook.recovery.training import Training, train

MLP = ["gate_proj", "up_proj", "down_proj"]


def test_a_broken_run_goes_on_with_the_same_result(make_model, text, tmp_path, monkeypatch):
    text = text[:20]
    whole = make_model("llama")
    broken = make_model("llama")
    expected = lora(whole, text, Training(learning_rate=1e-2), targets=MLP)
    training = Training(learning_rate=1e-2, checkpoint=tmp_path / "state", checkpoint_every=4)
    before = copy.deepcopy(broken.state_dict())
    breaks = interrupted_at(10, next_token_loss)
    monkeypatch.setattr(inspect.unwrap(train), "__defaults__", (breaks, None))
    with pytest.raises(KeyboardInterrupt):
        lora(broken, text, training, targets=MLP)
    # nothing half-merged
    assert all(torch.equal(value, before[name]) for name, value in broken.state_dict().items())
    monkeypatch.undo()
    assert lora(broken, text, training, targets=MLP) == expected
    assert all(
        torch.equal(*pair) for pair in zip(whole.parameters(), broken.parameters(), strict=True)
    )
    assert not list(tmp_path.iterdir())


def test_another_runs_checkpoint_is_refused(make_model, text, tmp_path, monkeypatch):
    training = Training(checkpoint=tmp_path / "state", checkpoint_every=1)
    monkeypatch.setattr(Checkpoint, "remove", lambda self: None)
    lora(make_model("llama"), text[:4], training, targets=MLP)
    with pytest.raises(
        UserError, match="is the checkpoint of another run; remove it, or name another file"
    ):
        lora(make_model("llama"), text[:3], training, targets=MLP)
