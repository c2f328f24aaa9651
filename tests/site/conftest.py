from tests.small_book import book  # noqa: F401 - a fixture of all tests here
