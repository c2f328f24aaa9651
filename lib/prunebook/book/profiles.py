"""Profiles: the named sets of notebook parameters in `papers/profiles.yml`."""

from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError

_FILE = "papers/profiles.yml"


def load_profiles(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Profile -> `default` or a paper's slug -> parameters, in the file's order: the later, the larger.

    Raises:
        UserError: the file cannot be read or is not of this form.
    """
    try:
        profiles = yaml.safe_load((root / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{_FILE}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(profiles, dict) or not profiles:
        raise UserError(f"{_FILE}: needs a mapping of profile -> parameters")
    for name, groups in profiles.items():
        if not isinstance(groups, dict) or "default" not in groups:
            raise UserError(f"{_FILE}: profile {name!r} needs a mapping 'default'")
        for group, values in groups.items():
            if not isinstance(values, dict):
                raise UserError(f"{_FILE}: {name}.{group} must be a mapping of parameter -> value")
            for key, value in values.items():
                if not isinstance(value, (str, int, float, list, type(None))):
                    raise UserError(f"{_FILE}: {name}.{group}.{key} must be a text, number, bool or list")
    return profiles


def parameters_of(root: Path, profile: str, slug: str) -> dict[str, Any]:
    """The parameters of one notebook: the profile's defaults, overridden by what it has for this slug.

    Raises:
        UserError: an unknown profile, or as `load_profiles`.
    """
    profiles = load_profiles(root)
    if profile not in profiles:
        raise UserError(f"unknown profile {profile!r}; allowed: {', '.join(profiles)}")
    return {**profiles[profile]["default"], **profiles[profile].get(slug, {})}
