"""What a model is made of, and how it changes shape."""

from typing import Any

from .. import list_names, load_export

# name -> module of the library that defines it; also read without running it
EXPORTS = {
    "load_model": "models.loading",
    "on_device": "models.loading",
    "resolve_device": "models.loading",
    "save_model": "models.loading",
}
__all__ = [*EXPORTS]


def __getattr__(name: str) -> Any:
    return load_export(__name__, EXPORTS, name)


def __dir__() -> list[str]:
    return list_names(__name__, __all__)
