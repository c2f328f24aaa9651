"""One colour and marker for each method that has a style; figures choose those of the others."""

import pytest

from prunebook.notebook.method_styles import METHOD_STYLES, method_style


def test_no_two_methods_have_the_same_style():
    assert len(set(METHOD_STYLES.values())) == len(METHOD_STYLES)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("LLM-Pruner", "llm-pruner"),
        ("LLM Pruner", "llm-pruner"),
        ("OWL with Wanda", "owl"),
        ("H2OCache", "h2o"),
        ("RIA", "ria"),
    ],
)
def test_a_label_of_a_method_has_its_style(label, name):
    assert method_style(label) == METHOD_STYLES[name]


def test_other_labels_have_none():
    assert method_style("Wanda per row") is None
