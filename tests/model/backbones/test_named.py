"""Backbones with a short name: their files of settings, and what is said where they are not."""

import pytest
from families import write_family
from huggingface_hub import constants

from recbole_e2urec.config.yaml import properties, properties_folder
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.loading import (
    BackboneOptions,
    find_source,
    load_backbone,
    named_backbones,
)
from recbole_e2urec.model.backbones.tiny import EMBEDDED

DOWNLOADED = sorted(set(named_backbones()) - set(EMBEDDED))


def test_the_papers_backbone_and_others_have_short_names():
    assert {"t5-base", "flan-t5-base", "smollm2-135m", "qwen2.5-0.5b", "llama-2-7b"} <= set(
        DOWNLOADED
    )
    assert set(EMBEDDED) <= set(named_backbones())


@pytest.mark.parametrize("name", named_backbones())
def test_help_and_the_docs_name_every_backbone(name):
    text = (properties_folder() / "overall.yaml").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith("backbone: "))
    assert name in line


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_named_backbone_says_where_its_files_are(name):
    settings = properties("backbone", name)
    assert settings["backbone_source"].count("/") == 1 or settings["backbone_source"][:4] == "pip:"
    BackboneOptions(name, dtype=settings.get("backbone_dtype", "float32"))


def test_a_named_backbone_is_read_from_its_source(tmp_path):
    folder = write_family("qwen2", tmp_path)
    model = load_backbone(BackboneOptions("qwen2.5-0.5b", source=folder), [], seed=0)
    assert model.model.config.model_type == "qwen2"


def test_a_named_backbone_out_of_reach_is_one_line_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    options = BackboneOptions(
        "t5-base", source=properties("backbone", "t5-base")["backbone_source"]
    )
    with pytest.raises(InputError) as error:
        load_backbone(options, [], seed=0)
    said = str(error.value)
    assert "\n" not in said
    for part in ("'t5-base'", "HF_HUB_OFFLINE is set", "google-t5/t5-base", "HF_HOME",
                 "--backbone_source=FOLDER", str(constants.HF_HUB_CACHE)):  # fmt: skip
        assert part in said


def test_a_home_folder_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_source("~/model") == (str(tmp_path / "model"), None)
    assert find_source("~/model").is_local
