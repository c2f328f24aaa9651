"""The one error a user causes: a single line that says what was given and what is allowed."""


class UserError(ValueError):
    """Bad input. The command line prints the message as one line and exits with code 2."""
