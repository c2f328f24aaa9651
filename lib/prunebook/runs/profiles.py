"""Profiles: the named sets of notebook parameters in `papers/profiles.yml`."""

import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..notebook.quick import QUICK

__all__ = ["QUICK", "load_profiles", "other_model_profiles", "parameters_of"]

_FILE = "papers/profiles.yml"
# The key under which a profile names the one that it is like.
_LIKE = "like"


def load_profiles(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """All profiles, in the order of the file: a later one has larger runs, unless it is `like` one.

    Args:
        root: folder of the book.

    Returns:
        Name of a profile -> `default` or the name of a notebook -> parameter -> value.

    Raises:
        UserError: the file cannot be read or is not of this form.
    """
    profiles = _checked(root)
    return {name: _resolved(name, profiles) for name in profiles}


def other_model_profiles(root: Path) -> set[str]:
    """The profiles that are `like` another: the same runs on another model, for records alone.

    Raises:
        UserError: as for `load_profiles`.
    """
    profiles = _checked(root)
    return {name for name, groups in profiles.items() if _LIKE in groups}


def _checked(root: Path) -> dict[str, Any]:
    """The profiles as the file has them, each of the right form."""
    path = root / _FILE
    try:
        state = path.stat()
        profiles = _read(path, state.st_size, state.st_mtime_ns)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{_FILE}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(profiles, dict) or not profiles:
        raise UserError(f"{_FILE}: needs a mapping of profile -> parameters")
    for name, groups in profiles.items():
        if not isinstance(name, str):
            raise UserError(f"{_FILE}: profile {name!r}: a name must be text; put it in quotes")
        if not isinstance(groups, dict) or "default" not in groups:
            raise UserError(f"{_FILE}: profile {name!r} needs a mapping 'default'")
        for group, values in groups.items():
            if group != _LIKE:
                _check_values(f"{name}.{group}", values)
    return profiles


def _resolved(name: str, profiles: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The groups of a profile; one that is `like` another has the other's values beneath its own.

    Args:
        name: name of the profile.
        profiles: all profiles as the file has them.
    """
    own = {group: values for group, values in profiles[name].items() if group != _LIKE}
    if _LIKE not in profiles[name]:
        return own
    base_name = profiles[name][_LIKE]
    complete = [other for other in profiles if _LIKE not in profiles[other]]
    if base_name not in complete:
        allowed = ", ".join(complete) or "none, as no profile is complete"
        raise UserError(
            f"{_FILE}: {name}.{_LIKE}: {base_name!r} is no complete profile; allowed: {allowed}"
        )
    base = profiles[base_name]
    groups = dict.fromkeys([*base, *own])
    return {group: {**base.get(group, {}), **own.get(group, {})} for group in groups}


def _check_values(group: str, values: Any) -> None:
    """Raise a `UserError` unless a group of a profile maps parameters to values of simple types."""
    if not isinstance(values, dict):
        raise UserError(f"{_FILE}: {group} must be a mapping of parameter -> value")
    for key, value in values.items():
        if not isinstance(value, str | int | float | list | None):
            raise UserError(f"{_FILE}: {group}.{key} must be a text, number, bool or list")


@functools.lru_cache(maxsize=8)
def _read(path: Path, size: int, changed: int) -> Any:
    """The content of the file, parsed once for each size and time of change.

    Args:
        path: the file.
        size: its size in bytes.
        changed: time of its last change in nanoseconds.
    """
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def parameters_of(root: Path, profile: str, name: str, assigned: Collection[str]) -> dict[str, Any]:
    """The parameters of one notebook: the profile's defaults, and over them its own values.

    Args:
        root: folder of the book.
        profile: name of the profile.
        name: slug of a paper, or name of a page, e.g. `concepts/evaluation`.
        assigned: parameters that the notebook has; other defaults are left out.

    Returns:
        Parameter -> value.

    Raises:
        UserError: an unknown profile, a value for a parameter that the notebook does not have, or
            as for `load_profiles`.
    """
    profiles = load_profiles(root)
    if profile not in profiles:
        raise UserError(f"unknown profile {profile!r}; allowed: {', '.join(profiles)}")
    default = profiles[profile]["default"]
    own = profiles[profile].get(name, {})
    for key in own:
        if key not in assigned:
            nothing = "none, its cells tagged 'parameters' assign nothing"
            allowed = ", ".join(sorted(assigned)) or nothing
            raise UserError(
                f"{_FILE}: {profile}.{name}.{key} is no parameter of the notebook; allowed: "
                f"{allowed}"
            )
    return {key: value for key, value in {**default, **own}.items() if key in assigned}
