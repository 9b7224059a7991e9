"""What MkDocs does beside its own: links out of docs/, and the roles of docstrings.

On a code host, pages link files outside docs/ by their path. On the site, each such file is a page
of its own below ``files/``.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

CHECKOUT = Path(__file__).resolve().parents[1]
FILES = "files"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(?=[#)])")
ROLE = re.compile(r":(?:class|func|meth|data|mod|attr):`~?([\w.]+)`")
HEAD = "---\nsearch: {{exclude: true}}\n---\n# {}\n\n"


def target_of(link: str, place: str) -> str:
    """Path in the checkout of what a page at ``place`` links."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), link))


def address_of(path: str) -> str:
    """Where the site has a file of the checkout."""
    inside = path.removeprefix("docs/")
    if inside != path:
        return inside
    return f"{FILES}/{path}" if path.endswith(".md") else f"{FILES}/{path}.md"


def place_of(address: str) -> str:
    """Path in the checkout of a page of the site."""
    return address.removeprefix(f"{FILES}/") if address.startswith(FILES) else f"docs/{address}"


def text_of(path: Path) -> str:
    """A file of the checkout as a page; a folder is a list of what is in it."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    name = path.relative_to(CHECKOUT).as_posix()
    if path.is_dir():
        members = sorted(path.rglob("*.yaml"))
        links = (f"- [{m.relative_to(path)}]({path.name}/{m.relative_to(path)})" for m in members)
        return HEAD.format(f"{name}/") + "\n".join(links)
    text = path.read_text(encoding="utf-8")
    return f"{HEAD.format(name)}````{path.suffix[1:]}\n{text}\n````\n"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each file outside docs/ that a page links, and for each that these link."""
    places = [place_of(file.src_uri) for file in files.documentation_pages()]
    texts = {
        place: (CHECKOUT / place).read_text("utf-8") for place in places if place.endswith(".md")
    }
    while texts:
        place, text = texts.popitem()
        for link in LINK.findall(text):
            path = target_of(link, place)
            if path.startswith("docs/") or files.get_file_from_path(address_of(path)):
                continue
            content = text_of(CHECKOUT / path)
            files.append(File.generated(config, address_of(path), content=content))
            texts[path] = content
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to where the site has the file."""
    here = page.file.src_uri

    def there(link: re.Match[str]) -> str:
        address = address_of(target_of(link[1], place_of(here)))
        return posixpath.relpath(address, posixpath.dirname(here))

    return LINK.sub(there, markdown)


class Roles(griffe.Extension):
    """Shows Sphinx's roles in docstrings as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
