"""Execute every notebook of notebooks/ from top to bottom, in a copy of the folder; the files stay as they are.

    python .ci/notebooks.py [--alone] [--write] [NAME...]

They share the copy, so that later ones go on with the pool of the first. `--alone` gives each a copy of its own,
`--write` keeps the outputs in the files. A NAME is the beginning of a notebook's.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", metavar="NAME")
    arguments.add_argument("--alone", action="store_true", help="a copy of the folder for each")
    arguments.add_argument("--write", action="store_true", help="keep the outputs in the files")
    given = arguments.parse_args()
    found = [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if path.name.startswith(tuple(given.names) or "")]
    with tempfile.TemporaryDirectory() as folder:
        for path in found:
            started = time.monotonic()
            notebook = nbformat.read(path, as_version=4)
            here = copied(Path(folder) / (path.stem if given.alone else "notebooks"))
            NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(here)}}).execute()
            print(f"{path.name}: {time.monotonic() - started:.0f} s", flush=True)
            if given.write:
                path.write_text(nbformat.writes(kept(notebook), indent=1) + "\n", encoding="utf-8")
    return 0


def copied(folder: Path) -> Path:
    """The notebooks' folder in another place, without what was made in it."""
    if not folder.exists():
        shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("work", ".ipynb_checkpoints"))
    return folder


def kept(notebook: NotebookNode) -> NotebookNode:
    """What is committed: outputs without warnings, counts and times, which differ from machine to machine."""
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec",)} | {"language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
            for one in cell.outputs:
                if one.output_type == "execute_result":
                    one.execution_count = None
                one.pop("transient", None)
    return notebook


if __name__ == "__main__":
    sys.exit(main())
