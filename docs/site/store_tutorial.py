"""Executes docs/tutorial.ipynb and stores its outputs: `python docs/site/store_tutorial.py`.

It takes about ten minutes of CPU time; set IMAGES_PER_CLASS=4 for a short trial. Files of the run are written
to a temporary folder. Messages on standard error are not stored.
"""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PATH = Path(__file__).parents[1] / "tutorial.ipynb"


def tidy(cell: nbformat.NotebookNode) -> None:
    """Reduces the outputs of a cell to its text on standard output and its figures."""
    cell.metadata = {}
    shown = [output for output in cell.outputs if output.output_type == "display_data"]
    printed = [output.text for output in cell.outputs if output.get("name") == "stdout"]
    text = [nbformat.v4.new_output("stream", text="".join(printed))] if printed else []
    cell.outputs = text + shown


def main() -> None:
    """Executes all cells in a new folder, and writes the notebook."""
    notebook = nbformat.read(PATH, 4)
    metadata = dict(notebook.metadata)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tidy(cell)
    notebook.metadata = metadata
    nbformat.write(notebook, PATH)


if __name__ == "__main__":
    main()
