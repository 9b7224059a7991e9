"""The site of the documentation: what is in its navigation, its links, and the notebook."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_docs import CHECKOUT, FENCE, LINK, PAGES, name_of, text_of

NOTEBOOK = CHECKOUT / "docs" / "quickstart.ipynb"
needs_docs = "needs the extra [docs]"


def cells(kind: str) -> list[dict[str, Any]]:
    cells = json.loads(text_of(NOTEBOOK))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def test_navigation_has_every_page() -> None:
    nav = text_of(CHECKOUT / "mkdocs.yml").split("\nnav:\n")[1].split("\n\n")[0]
    listed = set(re.findall(r": (\S+\.md)$", nav, re.MULTILINE))
    pages = {name_of(page).removeprefix("docs/") for page in PAGES if page.parent != CHECKOUT}
    top = {f"files/{page.name}" for page in PAGES if page.parent == CHECKOUT}
    assert listed == pages | top | {"quickstart.md"}


def test_notebook_is_small_and_shows_its_plot() -> None:
    outputs = [output for cell in cells("code") for output in cell["outputs"]]
    assert NOTEBOOK.stat().st_size < 200_000
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_links_of_the_notebook_lead_to_files() -> None:
    links = [link for cell in cells("markdown") for link in LINK.findall("".join(cell["source"]))]
    assert len(links) > 3
    assert [link for link in links if not (NOTEBOOK.parent / link.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_plots_stand_beside_the_command_that_makes_them(page: Path) -> None:
    commands = "".join(block for _, block in FENCE.findall(text_of(page)))
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text_of(page)):
        assert f"--plot={name_of(page.parent / picture)}" in commands


@pytest.mark.thorough
def test_notebook_runs_on_fewer_rows(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason=needs_docs)
    nbclient = pytest.importorskip("nbclient", reason=needs_docs)
    pytest.importorskip("ipykernel", reason=needs_docs)
    pytest.importorskip("matplotlib", reason=needs_docs)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = notebook.cells[1].source
    assert '"last_rows": 12_000, "epochs": 4' in settings
    small = settings.replace('"last_rows": 12_000, "epochs": 4', '"last_rows": 4_000, "epochs": 1')
    notebook.cells[1].source = small
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # an error in a cell is raised here
    text = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "NegatedE2URec" in text
    assert "nothing is known about this user" in text


def test_links_out_of_docs_are_pages_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("griffe", "mkdocs", "nbconvert"):
        pytest.importorskip(package, reason=needs_docs)
    monkeypatch.syspath_prepend(str(CHECKOUT / "docs"))
    import hooks

    assert hooks.target_of("../../README.md", "docs/how-to/purge.md") == "README.md"
    for path, address in (
        ("docs/how-to/purge.md", "how-to/purge.md"),
        ("docs/quickstart.ipynb", "quickstart.md"),
        ("README.md", "files/README.md"),
        ("properties/overall.yaml", "files/properties/overall.yaml.md"),
    ):
        assert hooks.address_of(path) == address
    folder = hooks.page_of("properties/prompt")
    assert "- [plain.yaml](prompt/plain.yaml)" in folder
    assert "\n````yaml\n" in hooks.page_of("properties/prompt/plain.yaml")
