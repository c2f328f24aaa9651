"""The project's public addresses, which stand in one place: `_config.yml`."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from ..errors import UserError


@dataclass(frozen=True)
class Address:
    """Where the project lives: `site` ends with a slash, `repository` does not."""

    site: str
    repository: str
    branch: str

    @property
    def project(self) -> str:
        """The repository as `owner/name`."""
        return urlsplit(self.repository).path.strip("/")


def read_address(root: Path | str) -> Address:
    """The addresses in `_config.yml`: `html.baseurl` and `repository`.

    Args:
        root: the book's folder.

    Raises:
        UserError: the file cannot be read, or an address is missing or not http(s).
    """
    path = Path(root) / "_config.yml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"_config.yml cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        config = {}
    site = (config.get("html") or {}).get("baseurl")
    repository = (config.get("repository") or {}).get("url")
    for name, value in (("html.baseurl", site), ("repository.url", repository)):
        if not isinstance(value, str) or urlsplit(value).scheme not in ("http", "https"):
            raise UserError(
                f"_config.yml: {name} {value!r} must be an address that starts with http:// or "
                "https://"
            )
    return Address(
        site.rstrip("/") + "/", repository.rstrip("/"), config["repository"].get("branch", "main")
    )
