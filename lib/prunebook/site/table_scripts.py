"""The scripts of tables: the library's own, and DataTables as a plain script."""

import re
import shutil
from pathlib import Path

from ..errors import UserError
from ..files import write_atomic
from ..runs.installed import versions_of

_SCRIPTS = Path(__file__).parent / "scripts"
_EXPORT = re.compile(r"export\s*\{[^{}]*?(\w+) as default[^{}]*\};?")


def write_scripts(folder: Path) -> None:
    """Write the scripts into `folder`, which must not exist; the theme loads them where needed.

    Raises:
        UserError: itables, which carries DataTables, is not installed or cannot be used.
    """
    shutil.copytree(_SCRIPTS, folder)
    write_atomic(folder / "datatables.js", _table_library())


def _table_library() -> str:
    """DataTables as a plain script that defines `DataTable`.

    Pages that are opened from a disk cannot load its module.
    """
    version = versions_of("itables")["itables"]
    import itables

    text = (Path(itables.__file__).parent / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    export = _EXPORT.search(text)
    if export is None:
        raise UserError(
            f"itables {version}: dt_bundle.js has no default export; install the version in "
            "requirements"
        )
    before = text[: export.start()]
    after = text[export.end() :]
    return f"(() => {{{before}window.DataTable = {export[1]};{after}\n}})();\n"
