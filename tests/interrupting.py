"""Runs that are broken off at a chosen place."""


def interrupted_at(number, function):
    """`function`, except that its call of this number, from 1, raises KeyboardInterrupt."""
    calls = 0

    def call(*arguments):
        nonlocal calls
        calls += 1
        if calls == number:
            raise KeyboardInterrupt
        return function(*arguments)

    return call
