"""The one error that a user causes: a single line that says what was given and what is allowed."""


class UserError(ValueError):
    """Bad input. The command line prints the message as one line and exits with code 2."""


def first_line(error: Exception) -> str:
    """The first line of another library's error message, or the error's name where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def not_finite(what: str) -> UserError:
    """The error for numbers that overflowed on calibration text.

    Args:
        what: name of the numbers, in the plural.
    """
    return UserError(
        f"calibration {what} hold NaN or infinity; use a wider dtype such as float32, or other "
        "calibration text"
    )
