"""What the site needs beside MkDocs: links out of docs/, titles of links, notebooks, roles.

On a code host, pages link files outside docs/ by their path. On the site, each such file is a page
below ``files/``.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

CHECKOUT = Path(__file__).resolve().parents[1]
FILES = "files/"
LINK = re.compile(r"\[((?:[^\]`]|`[^`]*`)*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
FRAME = re.compile(r"<style scoped>.*?</style>| border=\"1\" class=\"dataframe\"", re.DOTALL)
TITLE = re.compile(r"^# (.*)$", re.MULTILINE)
ROLE = re.compile(r":(?:class|func|meth|data|mod|attr):`~?([\w.]+)`")
HEAD = "---\nsearch: {{exclude: true}}\n---\n# {}\n\n"


def target_of(link: str, place: str) -> str:
    """Path in the checkout of what the page at ``place`` links."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), link))


def address_of(path: str) -> str:
    """Where the site has a file of the checkout."""
    if path.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
    return f"{FILES}{path}" if path.endswith(".md") else f"{FILES}{path}.md"


def place_of(address: str) -> str:
    """Path in the checkout of a page of the site."""
    return address.removeprefix(FILES) if address.startswith(FILES) else f"docs/{address}"


def is_code(page: File) -> bool:
    """Whether a page shows a file that is no Markdown, in which brackets are no links."""
    return page.src_uri.startswith(FILES) and (CHECKOUT / place_of(page.src_uri)[:-3]).is_file()


def page_of(path: str) -> str:
    """Text of the page that shows a file outside docs/; a folder's page lists what is in it."""
    source = CHECKOUT / path
    if path.endswith(".md"):
        return source.read_text(encoding="utf-8")
    if source.is_dir():
        names = sorted(file.relative_to(source).as_posix() for file in source.rglob("*.yaml"))
        links = (f"- [{name}]({source.name}/{name})" for name in names)
        return HEAD.format(f"{path}/") + "\n".join(links)
    text = source.read_text(encoding="utf-8")
    return f"{HEAD.format(path)}````{source.suffix[1:]}\n{text}\n````\n"


def add_notebooks(files: Files, config: Any) -> None:
    """Make a page of each notebook, with its plots beside it; the notebook itself stays.

    Tables of pandas look as all tables do.
    """
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        text, more = MarkdownExporter().from_filename(notebook.abs_src_path)
        address = address_of(f"docs/{notebook.src_uri}")
        files.append(File.generated(config, address, content=FRAME.sub("", text)))
        for name, content in more["outputs"].items():
            picture = posixpath.join(posixpath.dirname(address), name)
            files.append(File.generated(config, picture, content=content))


def on_files(files: Files, config: Any) -> Files:
    """Add notebooks, and pages for files outside docs/ that pages link, or that these link."""
    add_notebooks(files, config)
    pending = list(files.documentation_pages())
    while pending:
        page = pending.pop()
        for _, link, _ in LINK.findall("" if is_code(page) else page.content_string):
            path = target_of(link, place_of(page.src_uri))
            address = address_of(path)
            if not address.startswith(FILES) or files.get_file_from_path(address):
                continue
            if (CHECKOUT / path).exists():
                pending.append(File.generated(config, address, content=page_of(path)))
                files.append(pending[-1])
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to where the site has the file; a link named as a page's file gets its title."""
    here = page.file.src_uri

    def there(link: re.Match[str]) -> str:
        path = target_of(link[2], place_of(here))
        if not (CHECKOUT / path).exists():
            return link[0]
        address = posixpath.relpath(address_of(path), posixpath.dirname(here))
        text = link[1]
        if text == posixpath.basename(path) and path.endswith(".md"):
            text = TITLE.search((CHECKOUT / path).read_text(encoding="utf-8"))[1]
        return f"[{text}]({address}{link[3] or ''})"

    return markdown if is_code(page.file) else LINK.sub(there, markdown)


class Roles(griffe.Extension):
    """Shows Sphinx's roles in docstrings as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
