"""The public addresses have one place."""

import pytest

from prunebook.catalog import Address, read_address
from prunebook.errors import UserError


def test_addresses_are_read_with_and_without_slashes(tmp_path):
    text = (
        "html: {baseurl: 'https://x.org/book'}\n"
        "repository: {url: 'https://github.com/a/b/', branch: trunk}\n"
    )
    (tmp_path / "_config.yml").write_text(text)
    address = read_address(tmp_path)
    assert address == Address("https://x.org/book/", "https://github.com/a/b", "trunk")
    assert address.project == "a/b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "_config.yml: html.baseurl None must be an address"),
        ("html: {baseurl: 'https://x.org'}", "_config.yml: repository.url None must be an address"),
        (
            "html: {baseurl: 'javascript:x'}",
            "_config.yml: html.baseurl 'javascript:x' must be an address",
        ),
        ("html: [", "_config.yml cannot be read"),
    ],
)
def test_a_missing_or_odd_address_is_one_line(tmp_path, text, message):
    (tmp_path / "_config.yml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_address(tmp_path)
