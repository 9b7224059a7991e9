"""What an installation holds: the wheel's files, its entry point, and what is never imported."""

import ast
import configparser
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCES = ("setup.py", "pyproject.toml", "LICENSE", "recbole_e2urec", "properties")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Build the wheel from a copy of the sources, so that no file of an earlier build gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, target = CHECKOUT / name, folder / "checkout" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(folder / "checkout")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def read_metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


@pytest.fixture
def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_string(read_metadata(wheel, "METADATA"))


def files_below(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


def test_wheel_holds_every_yaml_file_of_properties(wheel: zipfile.ZipFile) -> None:
    prefix = "recbole_e2urec/properties/"
    packed = {name.removeprefix(prefix) for name in wheel.namelist() if name.startswith(prefix)}
    assert "overall.yaml" in packed
    assert packed == files_below(CHECKOUT / "properties", "*.yaml")


def test_wheel_keeps_the_text_of_a_yaml_file(wheel: zipfile.ZipFile) -> None:
    packed = wheel.read("recbole_e2urec/properties/overall.yaml")
    assert packed == (CHECKOUT / "properties" / "overall.yaml").read_bytes()


def test_wheel_holds_every_module_of_the_package(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if name.endswith(".py")}
    modules = files_below(CHECKOUT / "recbole_e2urec", "*.py")
    assert packed == {f"recbole_e2urec/{name}" for name in modules}


def test_wheel_has_the_console_script(wheel: zipfile.ZipFile) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(read_metadata(wheel, "entry_points.txt"))
    assert parser["console_scripts"]["recbole-e2urec"] == "recbole_e2urec.cli:main"


def test_wheel_holds_the_licence(wheel: zipfile.ZipFile) -> None:
    (path,) = (name for name in wheel.namelist() if name.endswith("/LICENSE"))
    assert wheel.read(path) == (CHECKOUT / "LICENSE").read_bytes()


def test_wheel_has_the_version_of_the_package(metadata: Message) -> None:
    import recbole_e2urec

    assert metadata["Version"] == recbole_e2urec.__version__


@pytest.mark.parametrize("requirement", ["pandas", "numpy", "torch", "transformers", "peft"])
def test_wheel_requires_what_the_package_imports(metadata: Message, requirement: str) -> None:
    required = metadata.get_all("Requires-Dist", [])
    assert any(line.startswith(requirement) and "extra" not in line for line in required)


def test_wheel_refuses_pandas_3(metadata: Message) -> None:
    (pandas,) = (line for line in metadata.get_all("Requires-Dist", []) if "pandas<" in line)
    assert "<3" in pandas


@pytest.mark.parametrize("path", sorted(files_below(CHECKOUT / "recbole_e2urec", "*.py")))
def test_module_imports_neither_ray_nor_recbole_quick_start(path: str) -> None:
    tree = ast.parse((CHECKOUT / "recbole_e2urec" / path).read_text(encoding="utf-8"))
    assert not [name for name in imported_names(tree) if is_forbidden(name)]


@pytest.mark.thorough
def test_package_gives_its_function_without_importing_it_first() -> None:
    code = (
        "import sys, recbole_e2urec; assert 'torch' not in sys.modules; "
        "from recbole_e2urec import run_recbole_e2urec; "
        "assert callable(run_recbole_e2urec) and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT, timeout=120)


def test_package_has_no_other_lazy_name() -> None:
    import recbole_e2urec

    with pytest.raises(AttributeError, match="no attribute 'run_recbole'"):
        _ = recbole_e2urec.run_recbole


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Give ``a.b`` for ``import a.b`` and ``a.b.c`` for ``from a.b import c``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_forbidden(name: str) -> bool:
    return name.split(".")[0] == "ray" or f"{name}.".startswith("recbole.quick_start.")
