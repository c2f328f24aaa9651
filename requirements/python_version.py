"""Refuse a Python that is too old for the environment; warn of one newer than the pins know.

Every Python 3 can read this file, so that an old one answers with one line.
"""

import sys

OLDEST = (3, 11)
NEWEST = (3, 13)  # the pinned versions have wheels up to here


def too_old(version):
    """The line that refuses `version`, e.g. (3, 10), or None."""
    if version >= OLDEST:
        return None
    return dotted(version) + " is too old, 3.11 to 3.13 will do: make PYTHON=python3.12"


def too_new(version):
    """The line that warns of `version`, e.g. (3, 14), or None."""
    if version <= NEWEST:
        return None
    return (
        dotted(version) + " is newer than the pinned packages know (3.11 to 3.13); "
        "if pip fails: make PYTHON=python3.13"
    )


def dotted(version):
    """`Python 3.12` of (3, 12)."""
    return "Python " + ".".join(map(str, version))


if __name__ == "__main__":
    warning = too_new(sys.version_info[:2])
    if warning:
        sys.stderr.write(warning + "\n")
    sys.exit(too_old(sys.version_info[:2]))
