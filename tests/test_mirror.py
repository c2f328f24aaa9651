"""The tests mirror the library: `<room>/<file>.py` of it has `<room>/test_<file>.py` here."""

from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "lib" / "prunebook"
TESTS = ROOT / "tests"

# library files that share another test file -> the place of that file, and why
TESTED_ELSEWHERE = {
    "kernels/*_kernels.py": (
        "{folder}/test_{launcher}.py",
        "a kernel runs only as its launcher calls it",
    ),
    "bench/cases/*.py": (
        "bench/test_cases.py",
        "every family of cases is held to the same claims, as one list of small cases",
    ),
}
# test files that stand for no file of the library -> what they test instead
OTHER_TESTS = {
    "bench/test_cases.py": "the package of cases as a whole, see above",
    "benchmarks/*.py": "the scripts in benchmarks/",
    "browser/*.py": "the built pages, in a browser",
    "test_api.py": "the front of the package: its names and what loading them costs",
    "test_make.py": "the Makefile",
    "test_mirror.py": "the tests themselves",
    "test_repository.py": "workflows, forms and hooks of the repository",
}


def files_in(folder: Path, pattern: str) -> list[Path]:
    """The files below `folder` with names of this pattern, relative to it, in a fixed order."""
    return sorted(path.relative_to(folder) for path in folder.rglob(pattern))


def library_files() -> list[Path]:
    return [path for path in files_in(LIBRARY, "*.py") if path.name != "__init__.py"]


def mirrored(path: Path) -> Path:
    """The test file at the same place as a library file."""
    return path.with_name(f"test_{path.name}")


def shared_test(path: Path) -> Path | None:
    """The test file that a library file shares with another one; None where it has its own."""
    for pattern, (place, _) in TESTED_ELSEWHERE.items():
        if fnmatch(str(path), pattern):
            launcher = path.stem.removesuffix("_kernels")
            return Path(place.format(folder=path.parent, launcher=launcher))
    return None


def test_every_library_file_has_its_test_file():
    tests = {path: mirrored(path) for path in library_files()}
    missing = [str(path) for path, test in tests.items() if not (TESTS / test).is_file()]
    assert [path for path in missing if shared_test(Path(path)) is None] == []


def test_every_test_file_has_its_library_file():
    places = {mirrored(path) for path in library_files()}
    others = [str(path) for path in files_in(TESTS, "test_*.py") if path not in places]
    unknown = [path for path in others if not any(fnmatch(path, known) for known in OTHER_TESTS)]
    assert unknown == []


def test_every_exception_is_needed():
    """Each pattern matches something, shared test files exist, and no mirrored test is excused."""
    for pattern in TESTED_ELSEWHERE:
        sharing = [path for path in library_files() if fnmatch(str(path), pattern)]
        assert sharing, pattern
        for path in sharing:
            assert (TESTS / shared_test(path)).is_file(), path
    tests = [str(path) for path in files_in(TESTS, "test_*.py")]
    places = {str(mirrored(path)) for path in library_files()}
    for pattern in OTHER_TESTS:
        matching = [path for path in tests if fnmatch(path, pattern)]
        assert matching, pattern
        assert not places & set(matching), pattern
