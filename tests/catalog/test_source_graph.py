"""Which modules code can reach, on a small library of the real one's shape."""

import os

import pytest

from prunebook.catalog.source_graph import PACKAGE, SourceGraph, source_graph, source_signature

BASE = {"prunebook", "prunebook.methods", "prunebook.methods.prune", "prunebook.errors"}
WANDA = BASE | {
    "prunebook.methods.wanda",
    "prunebook.methods.essential_sparsity",
    "prunebook.sparsity",
    "prunebook.sparsity.patterns",
}
CLAIMS = {"prunebook", "prunebook.notebook", "prunebook.notebook.claims"}


@pytest.mark.parametrize(
    ("code", "reached"),
    [
        ("import prunebook as pb\npb.claim('wanda2')", CLAIMS),
        ("import prunebook as pb\npb.prune(m, 0.5)", BASE),
        ("import prunebook as pb\npb.prune(m, 'wanda')", WANDA),
        ("import prunebook as pb\npb.show_it(pb.methods.Wanda(sparsity=0.5))", WANDA),
        ("import prunebook\nprunebook.methods.wanda.Wanda", WANDA),
        ("from prunebook.methods import Wanda as W", WANDA),
        ("from prunebook import methods as m\nm.Wanda()", WANDA),
        ("import prunebook.methods.wanda as w", WANDA),
        ("from prunebook import methods", BASE),
        ("from prunebook.methods import compare", BASE | {"prunebook.unused"}),
        (
            "import prunebook as pb\npb.patterns.keep_mask",
            {"prunebook", "prunebook.errors", "prunebook.sparsity", "prunebook.sparsity.patterns"},
        ),
        ("from prunebook import claim", CLAIMS),
        ("import prunebook.unused", {"prunebook", "prunebook.unused"}),
        (
            "import prunebook as pb\npb.lazy()",
            {
                "prunebook",
                "prunebook.lazy",
                "prunebook.deep",
                "prunebook.deep.inner",
                "prunebook.deep.helper",
                "prunebook.sparsity",
                "prunebook.sparsity.patterns",
                "prunebook.errors",
            },
        ),
        ("import numpy as pb\npb.claim", set()),
    ],
)
def test_reach(package, code, reached):
    assert SourceGraph(package).reach([code], {}) == reached


def test_a_method_among_the_parameters_is_reached(package):
    assert (
        SourceGraph(package).reach(
            ["import prunebook as pb\npb.prune(m, name)"], {"names": ["wanda"]}
        )
        == WANDA
    )


def test_what_is_no_python_reaches_everything(package):
    graph = SourceGraph(package)
    assert graph.reach(["%matplotlib inline"], {}) == set(graph.files)


def test_a_package_is_parsed_again_only_when_a_file_has_changed(package):
    first = source_graph(package)
    before = source_signature(package)
    assert source_graph(package) is first
    path = package / "sparsity" / "patterns.py"
    path.write_text("from ..unused import x\n")
    os.utime(path, ns=(1, 1))  # also where the clock is too coarse to tell two writes apart
    assert source_signature(package) != before
    second = source_graph(package)
    assert second is not first
    assert "prunebook.unused" in second.reach_of(["prunebook.sparsity.patterns"])
    (package / "unused.py").rename(package / "renamed.py")
    assert "prunebook.renamed" in source_graph(package).files


def test_reach_of_modules_takes_their_packages_and_imports(package):
    graph = source_graph(package)
    assert graph.reach_of(["prunebook.methods.essential_sparsity"]) == BASE | {
        "prunebook.methods.essential_sparsity",
        "prunebook.sparsity",
        "prunebook.sparsity.patterns",
    }
    assert graph.reach_of([]) == set()


def test_the_library_itself():
    graph = SourceGraph(PACKAGE)
    assert graph.methods["wanda"] == "prunebook.methods.wanda"
    reached = graph.reach(["import prunebook as pb\npb.claim('x')"], {})
    names = (
        "bounds",
        "claim_boxes",
        "claims",
        "contention",
        "display",
        "gaps",
        "judging",
        "quick",
        "results",
        "speedup",
        "stated",
        "tables",
    )
    modules = {f"prunebook.notebook.{name}" for name in names}
    assert reached == modules | {"prunebook", "prunebook.errors", "prunebook.notebook"}
    reached = graph.reach(["import prunebook as pb\npb.prune(model, pb.methods.Wanda())"], {})
    assert {
        "prunebook.methods.wanda",
        "prunebook.sparsity.patterns",
        "prunebook.passes.sequential",
    } <= reached
    assert (
        not {"prunebook.methods.sparsegpt.method", "prunebook.cli.main", "prunebook.runs.cache_key"}
        & reached
    )
