"""The packages of the `book` extra: running and building need them, the catalogue does not."""

import importlib.metadata

from ..errors import UserError


def versions_of(*packages: str) -> dict[str, str]:
    """The installed versions of some packages of the extra.

    Args:
        packages: names of distributions.

    Returns:
        Name -> version.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        return {name: importlib.metadata.version(name) for name in packages}
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"{error.name} is not installed; install prunebook[book]") from error
