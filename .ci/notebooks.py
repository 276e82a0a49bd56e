"""Execute every notebook of notebooks/ from top to bottom in an empty folder; the files themselves stay as they are."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        started = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        if any(cell.get("outputs") for cell in notebook.cells):
            print(f"{path.relative_to(root)}: holds outputs; clear them before it is committed")
            return 1
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(notebook, timeout=900, resources={"metadata": {"path": folder}}).execute()
        print(f"{path.relative_to(root)}: {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
