"""The notebook of the documentation: executed as committed, and committed without outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_docs import CODE_BLOCK, LINK, ROOT

NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
NOTEBOOK = ROOT / "docs/getting-started/notebook.ipynb"
MAX_BYTES = 12_288  # without outputs
SECONDS_ALLOWED = 600  # for a cell, on a machine that does much else


def pictures_of(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Types of the pictures below the cells."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield from (kind for kind in output.get("data", {}) if kind.startswith("image/"))


def test_every_cell_of_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # All that the kernel and the notebook write goes to the folder of the test.
    for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=SECONDS_ALLOWED, resources=resources).execute()
    nbformat.write(notebook, tmp_path / "executed.ipynb")  # to look at
    # Three pictures: clips with captions, curves, queries with the clips ranked first.
    pictures = [kind for kind in pictures_of(notebook) if kind != "image/jpeg"]
    assert pictures == ["image/png", "image/svg+xml", "image/png"]
    # A model that has learned nothing has an R@10 of 25.
    (scores,) = tmp_path.glob("alpro_*/output/first/results_test/*/scores.json")
    assert json.loads(scores.read_text())["text2video"]["r10"] > 40
    # The exported model is used from Python, and finds moments in long videos.
    printed = "".join(o.text for c in notebook.cells for o in c.get("outputs", []) if "text" in o)
    assert "2 files indexed: 78 windows of 1:20 of video" in printed
    assert "data/demo/long/test/" in printed
    assert "s of 20 windows" in printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if cell.outputs or cell.execution_count] == []
    assert [cell.source for cell in notebook.cells if cell.metadata] == []
    assert len(path.read_bytes()) <= MAX_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_of_notebooks_lead_somewhere(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    links = LINK.findall(CODE_BLOCK.sub("", text))
    assert links
    assert [link for link in links if not (path.parent / link).is_file()] == []
