"""README and docs: links and anchors resolve, and commands and imports exist."""

import ast
import importlib
import re
import shlex
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from recbole_e2urec.cli import parse
from recbole_e2urec.config.keys import check_keys, find_model, split_forget_method

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = [
    *(CHECKOUT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((CHECKOUT / "docs").rglob("*.md")),
]
WIDTH = 100
LINK = re.compile(r"\[(?:[^\]`]|`[^`]*`)*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`((?:benchmarks|docs|properties|recbole_e2urec|tests)/[\w./-]+)`")
TEST = re.compile(r"`((?:\w+/)?test_\w+\.py)`")  # below tests/
PROGRAM = re.compile(r"^(?:\$ )?(?:recbole-e2urec|python run_recbole_e2urec\.py)(?: |$)")


def name_of(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    return FENCE.sub("", text_of(page))


def anchors_of(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in found)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def commands_of(page: Path) -> Iterator[list[str]]:
    """Arguments of each command of this package in a fenced block, its continued lines joined."""
    for language, block in FENCE.findall(text_of(page)):
        lines = block.replace("\\\n", " ").splitlines() if language in ("", "bash") else []
        for line in lines:
            for command in line.split(" && "):
                if PROGRAM.match(command) and "[" not in command.partition("'")[0]:
                    words = shlex.split(command.removeprefix("$ "), comments=True)
                    yield words[1 if words[0] == "recbole-e2urec" else 2 :]


@pages
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose_of(page)):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        known = target.exists() and target.is_relative_to(CHECKOUT)
        if not known or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken


@pages
def test_named_files_of_the_checkout_exist(page: Path) -> None:
    made_up = {"properties/model/NAME.yaml", "properties/model/Name.yaml"}
    made_up |= {"recbole_e2urec/methods/name.py"}
    named = set(PATH.findall(prose_of(page))) - made_up
    if page.name == "CHANGELOG.md":  # it also names what files were called
        named = {name for name in named if name.count("/") > 1}
    named |= {f"tests/{name}" for name in TEST.findall(prose_of(page))}
    assert [name for name in named if not (CHECKOUT / name).exists()] == []


@pages
def test_lines_are_wrapped(page: Path) -> None:
    plain = re.sub(r"<!-- regimes -->.*<!-- /regimes -->", "", prose_of(page), flags=re.DOTALL)
    shown = re.sub(r"\]\([^)\s]+\)", "]", plain)
    lines = (line for line in shown.splitlines() if not line.startswith(("|", "#")))
    assert [line for line in lines if len(line) > WIDTH] == []


@pages
def test_commands_have_known_keys_and_models(page: Path) -> None:
    for words in commands_of(page):
        arguments = parse(words)
        check_keys(arguments.settings, shlex.join(words))
        models = arguments.settings.get("model_list", arguments.model or "")
        for model in filter(None, models.split(",")):
            find_model(split_forget_method(model)[0])


@pages
def test_imports_of_python_blocks_exist(page: Path) -> None:
    for language, block in FENCE.findall(text_of(page)):
        tree = ast.parse(textwrap.dedent(block)) if language == "python" else ast.parse("")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [one.name for one in node.names if not hasattr(module, one.name)] == []


def test_pages_that_the_sources_name_exist() -> None:
    folders = ("recbole_e2urec", "benchmarks", "properties")
    sources = [path for name in folders for path in (CHECKOUT / name).rglob("*.*")]
    sources = [path for path in sources if path.suffix in (".py", ".yaml")]
    texts = map(text_of, [*sources, CHECKOUT / "constraints.txt"])
    named = {name for text in texts for name in re.findall(r"docs/[\w/-]+\.\w+", text)}
    assert len(named) > 5
    assert [name for name in named if not (CHECKOUT / name).is_file()] == []


def test_every_page_is_listed() -> None:
    index = CHECKOUT / "docs" / "README.md"
    listed = {(index.parent / link).resolve() for link in LINK.findall(text_of(index))}
    assert {page for page in PAGES if page.parent != CHECKOUT} - listed - {index} == set()


def test_the_tables_of_benchmarks_stand_between_marks() -> None:
    for name in ("evidence", "choices", "three-sample"):
        text = text_of(CHECKOUT / "docs" / "explanation" / f"{name}.md")
        assert text.count("<!-- regimes -->") == text.count("<!-- /regimes -->") == 1


def test_links_are_found_and_anchors_made(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text("## What `a` [b](c) is, really\n```\n# no heading\n```\n", encoding="utf-8")
    assert anchors_of(page) == {"what-a-b-is-really"}
    assert LINK.findall("[a](b.md#c), [`d[0]`](e), [x](y z)") == ["b.md#c", "e"]


def test_what_docstrings_refer_to_exists() -> None:
    names = {"recbole_e2urec", "torch", "nn", "Module"}
    sources = sorted((CHECKOUT / "recbole_e2urec").rglob("*.py"))
    for source in sources:
        names |= {source.stem, source.parent.name}
        for node in ast.walk(ast.parse(text_of(source))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.id if isinstance(node, ast.Name) else node.attr)
    role = re.compile(r":(?:class|func|meth|data|mod|attr):`([\w.]+)`")
    referred = {name for source in sources for name in role.findall(text_of(source))}
    assert len(referred) > 50
    assert {name for name in referred if not names.issuperset(name.split("."))} == set()
