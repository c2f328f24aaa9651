"""Records for the exports, one of a stranger who means harm, and the address of a book."""

from tests.tiny_book import record

from prunebook.catalog import Address, Record, parse_record

ADDRESS = Address("https://x.org/book/", "https://github.com/a/b", "trunk")
HOSTILE = '</title><script>alert(1)</script> & "quoted" ]]> \u200f{x}% \\input{y}'


def parsed(**changes) -> Record:
    """The record of Wanda with these changes."""
    return parse_record(record(**changes), "here")


def hostile_record() -> Record:
    """A record whose texts are markup of every kind."""
    return parsed(title=HOSTILE, takeaway=HOSTILE, authors=[HOSTILE])
