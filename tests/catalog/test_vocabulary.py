"""The facets, their values, and the headings that explain them."""

import pytest

from prunebook.catalog import CONCEPT_PAGES, VOCABULARY, concept_anchor
from prunebook.errors import UserError


@pytest.mark.parametrize(
    ("facet", "value", "anchor"),
    [
        ("type", "Unstructured", "type-unstructured"),
        ("type", "Head/Neuron", "type-head-neuron"),
        ("criteria", "Angular Distance", "criteria-angular-distance"),
        ("data", "Data free", "data-data-free"),
        ("retrain", "Without", "retrain-without"),
    ],
)
def test_concept_anchor(facet, value, anchor):
    assert concept_anchor(facet, value) == anchor


def test_concept_anchors_are_unique_and_every_facet_has_a_page():
    anchors = [
        concept_anchor(facet, value) for facet, values in VOCABULARY.items() for value in values
    ]
    assert len(set(anchors)) == len(anchors) == 34
    assert list(CONCEPT_PAGES) == list(VOCABULARY)


def test_unknown_facet_and_value():
    with pytest.raises(
        UserError,
        match=r"^unknown facet 'kind'; allowed: type, criteria, budget, data, retrain, weight$",
    ):
        concept_anchor("kind", "Other")
    with pytest.raises(
        UserError, match=r"^unknown weight value 'frozen'; allowed: Frozen, Update, Other$"
    ):
        concept_anchor("weight", "frozen")
