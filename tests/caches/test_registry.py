"""The papers' caches by name: each is a class of its module, loaded when it is first named."""

import pytest
from transformers import Cache

from prunebook import caches
from prunebook.caches.registry import REGISTRY


def test_every_name_has_a_class():
    for module, class_name in REGISTRY.values():
        cls = getattr(caches, class_name)
        assert issubclass(cls, Cache)
        assert cls.__module__ == f"prunebook.caches.{module}"
        assert class_name in caches.__all__
    assert list(REGISTRY) == sorted(REGISTRY)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = caches.Nothing
