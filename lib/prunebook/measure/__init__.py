"""What a model is worth and what it costs: quality, tasks, footprint, memory, zeros.

`prunebook.measure` was a function before it was a room; called as one, it is `measure_quality`.
"""

import importlib
import sys
import types
from typing import Any


class _CallableRoom(types.ModuleType):
    """This package, which can still be called as the function whose name it has taken."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        quality = importlib.import_module(f"{self.__name__}.quality")
        return quality.measure_quality(*args, **options)


sys.modules[__name__].__class__ = _CallableRoom
