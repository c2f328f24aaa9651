"""`prunebook bench kernels` on a machine that cannot, and on a device that is not there."""

import pytest
import torch
from click.testing import CliRunner
from tests.bench.fakes import FakeTimer, case

from prunebook.bench import cases, gpu
from prunebook.bench.case import Provider
from prunebook.cli.main import main


def call(*arguments):
    return CliRunner().invoke(main, ["bench", "kernels", *arguments])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_cuda_it_is_one_line_and_code_2(book):
    result = call()
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"prunebook: bench kernels needs a CUDA GPU, and torch {torch.__version__} sees none; "
        f"run it on one"
    ]
    assert result.stdout == ""
    assert not (book / "benchmarks").exists()


def test_interpreted_kernels_are_not_timed(book, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    result = call()
    assert result.exit_code == 2
    assert "TRITON_INTERPRET is set" in result.stderr


def test_the_code_says_whether_a_kernel_is_wrong(book, monkeypatch):
    monkeypatch.setattr(gpu, "check_cuda", lambda: None)
    monkeypatch.setattr(gpu, "GpuTimer", FakeTimer)
    wrong = Provider("ours", lambda operands: operands["x"])
    monkeypatch.setattr(cases, "all_cases", lambda: [case("good"), case("bad", providers=[wrong])])
    result = call("--only", "good")
    assert result.exit_code == 0, result.output
    assert "1 cases measured, 0 known already" in result.stdout
    assert (book / "benchmarks/results/kernels-fake-gpu-1.json").exists()
    result = call("--minutes", "2")
    assert result.exit_code == 1
    assert "wrong: bad size=8: ours: error" in result.stdout
    assert "1 cases measured, 1 known already" in result.stdout
    assert call("--only", "other").exit_code == 2
    assert call("--minutes", "0").exit_code == 2
