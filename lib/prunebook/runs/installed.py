"""The packages of the `book` extra: the catalogue does without them, running and building do
not."""

import importlib.metadata

from ..errors import UserError


def versions_of(*packages: str) -> dict[str, str]:
    """The installed versions of packages of the extra.

    Raises:
        UserError: one is not installed.
    """
    try:
        return {name: importlib.metadata.version(name) for name in packages}
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"{error.name} is not installed; install prunebook[book]") from error
