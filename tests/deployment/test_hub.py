"""``export --format=merged`` and ``peft``: folders for plain transformers and peft, with a card."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from in_use import CANARY, CANARY_ITEM, CANARY_TITLE, NAMES, make_model, write_data

from recbole_e2urec import cli
from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.deployment.hub import ModelFacts, example_of, publish
from recbole_e2urec.deployment.recommend import load_recommender
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.run import Experiment
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.report.tables import NOISE

SETTINGS = {
    "title_field": "movie_title", "user_fields": ["age"], "control_users": 0,
    "show_progress": False,
}  # fmt: skip
REQUEST = {
    "request_id": CANARY, "method": "NegGrad", "date": "2026-11-30T21:32:29+00:00", "rows": 12,
    "training_rows": 9, "forget_loss": [0.5, 0.75], "evidence": {
        "asked": {"users": {"some": 1, "whole": 1}},
        "retrain": {
            "measures": {"forget": {"loss": 0.7}},
            "distances": {"after": {"residual": 0.25}, NOISE: {"residual": 0.1}},
        },
    },
}  # fmt: skip
# Backbone, tuning, format; under full tuning the embeddings of T5 are parted, as unlearning does.
CASES = [
    ("tiny-t5", "full", "merged"), ("tiny-llama", "full", "merged"),
    ("tiny-t5", "lora", "merged"), ("tiny-llama", "lora", "merged"),
    ("tiny-t5", "lora", "peft"), ("tiny-llama", "lora", "peft"),
]  # fmt: skip
cases = pytest.mark.parametrize("case", CASES, ids="-".join)
# Runs the code of cards in their folders, once as it is and then with other prompts.
SCRIPT = """
import json, os, sys
sys.modules["recbole_e2urec"] = None  # an import fails
for folder, load, ask, prompts in json.load(sys.stdin):
    os.chdir(folder)
    exec(load)
    exec(ask)
    for prompt in prompts:
        exec(ask.partition("\\n")[2])
"""


class Published(NamedTuple):
    run: Experiment
    folder: Path
    prompts: list[str]
    wanted: list[float]
    said: str

    @property
    def card(self) -> str:
        return (self.folder / "README.md").read_text()


def run_of(data: Path, **settings: Any) -> Experiment:
    """A run with random weights, whose adapters change their answers."""
    given = {"data_path": str(data), **SETTINGS, "prompt": "numbered", **settings}
    given["backbone_init"] = 1.0  # or a T5 answers all prompts nearly alike
    config = Config("LLMRec", "small", None, given)
    run = Experiment(config, load_dataset(config, examine=False))
    bank, generator = run.model.bank, torch.Generator().manual_seed(5)
    name = run.model.adapter or "student"
    if run.model.adapter is None:
        bank.add(name, run.model.lora, 0)
    for weight in bank.parameters(name):
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    if run.model.adapter is None:
        bank.merge(name)
    return run


def published(run: Experiment, kind: str, folder: Path) -> Published:
    user = run.dataset.ids.users[CANARY]
    gone = np.array([user])
    forgotten = np.flatnonzero(run.dataset.rows.user == user)
    facts = ModelFacts("NegGrad", {"auc": 0.75, "rows": 20}, [REQUEST], forgotten, gone)
    said = publish(run, facts, folder, kind, "mit")
    rows, codec = run.parts.splits.test[:3], run.model.language_model.codec
    with run.model.using_history(run.history(forgotten)):
        batch = run.model.table.batch(rows, None)
        prompts = [
            codec.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
            for ids, mask in zip(*batch, strict=True)
        ]
        answers = run.model.answer(rows, None).tolist()
    wanted = [example_of(run.model, run.dataset.rows).yes, *answers]
    return Published(run, folder, prompts, wanted, said)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Published]:
    folder = tmp_path_factory.mktemp("hub")
    data = write_data(folder, names=NAMES)
    runs = {
        (name, tuning): run_of(data, backbone=name, tuning=tuning)
        for name, tuning in {case[:2] for case in CASES}
    }
    return {case: published(runs[case[:2]], case[2], folder / "-".join(case)) for case in CASES}


@pytest.fixture(scope="module")
def answers(made: dict[tuple[str, ...], Published]) -> dict[tuple[str, ...], list[float]]:
    """What the code of each card answers, by nothing but transformers and peft."""
    code = {
        case: re.findall(r"^```python\n(.*?)^```$", one.card, re.MULTILINE | re.DOTALL)
        for case, one in made.items()
    }
    given = [[str(one.folder), *code[case], one.prompts] for case, one in made.items()]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(given), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = np.array(done.stdout.split(), float).reshape(len(made), -1)
    return dict(zip(made, lines.tolist(), strict=True))


@cases
def test_the_code_of_a_card_answers_as_the_model_does(case, made, answers) -> None:
    assert answers[case] == pytest.approx(made[case].wanted, abs=1e-4)
    assert f"P(yes) = {answers[case][0]:.4f}" in made[case].card
    assert np.ptp(made[case].wanted) > 1e-3


@cases
def test_a_folder_is_a_backbone_again(case, made) -> None:
    _, folder, prompts, wanted, _ = made[case]
    again = load_backbone(BackboneOptions(str(folder)), [], seed=0)
    assert not [name for name, _ in again.model.named_modules() if "lora" in name]
    for prompt, yes in zip(prompts, wanted[1:], strict=True):
        ids = torch.tensor([[*again.prefix_ids, *again.encode([prompt])[0], *again.suffix_ids]])
        logits = again(ids, torch.ones_like(ids))[0, list(again.answer_ids)]
        assert float(logits.softmax(0)[1].detach()) == pytest.approx(yes, abs=1e-4)


@cases
def test_neither_card_nor_tokenizer_name_who_was_forgotten(case, made) -> None:
    _, folder, _, _, said = made[case]
    names = (CANARY, CANARY_ITEM, CANARY_TITLE, "Film", str(folder.parent))
    assert not [name for name in names if name in made[case].card]
    assert not [path for path in folder.rglob("*.*") if CANARY.encode() in path.read_bytes()]
    assert "useru3" in json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert "has a word for each of 23 users, by their ids" in said


@cases
def test_a_card_tells_what_hubs_and_people_ask_for(case, made) -> None:
    card = made[case].card
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "mit"
    assert front["library_name"] == ("peft" if case[2] == "peft" else "transformers")
    assert "base_model" not in front  # nothing came from a hub
    for text in ("| users | 24 |", "| AUC | 0.7500 |", "12 rows forgotten, 1 user as a whole"):
        assert text in card
    for text in ("was 0.5000 before and is 0.7500 now", "0.7000", "0.250", "evidence, not proof"):
        assert text in card
    shown = (line for line in card.splitlines() if not line.startswith("prompt = "))
    assert max(map(len, shown)) <= 170  # the split is one line


def test_an_adapter_names_its_base(made) -> None:
    folder = made["tiny-t5", "lora", "peft"].folder
    assert (
        json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "base"
    )
    assert (folder / "base" / "model.safetensors").is_file()


def test_a_whole_model_is_no_adapter(made) -> None:
    run = made["tiny-t5", "full", "merged"].run
    nothing = np.empty(0, np.int64)
    with pytest.raises(InputError, match=r"no adapter; write --format=merged"):
        publish(run, ModelFacts("LLMRec", {}, [], nothing, nothing), Path("x"), "peft")
    assert not list(Path().iterdir())


def test_a_saved_recommender_is_made_again(made) -> None:
    run = made["tiny-t5", "full", "merged"].run
    run.model.save_pretrained("saved-model")
    again = LLMRec.from_pretrained("saved-model", run.config, run.dataset)
    rows, history = run.parts.splits.test[:4], run.history(np.empty(0, np.int64))
    with again.using_history(history), run.model.using_history(history):
        wanted = run.model.answer(rows, None).numpy()
        assert again.answer(rows, None).numpy() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model_name_or_path": None}, "does not say which backbone it belongs to"),
        ({"base_model_name_or_path": "./gone"}, "cannot be loaded from ./gone"),
        ({"peft_type": "IA3"}, "a LoRA of this backbone is needed"),
        (None, "pickles are not read"),
    ],
)
def test_a_folder_that_is_no_fitting_adapter_is_one_line(change, message, made, tmp_path) -> None:
    for file in made["tiny-llama", "lora", "peft"].folder.rglob("*.*"):
        if file.is_file() and not (change and "peft_type" not in change and "base" in file.parts):
            copy = tmp_path / "copy" / file.relative_to(made["tiny-llama", "lora", "peft"].folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    file = tmp_path / "copy" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **(change or {})}))
    if change is None:
        (tmp_path / "copy" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=re.escape(message)):
        load_backbone(BackboneOptions(str(tmp_path / "copy")), [], seed=0)


def test_runs_go_on_with_exported_folders(made) -> None:
    data = made["tiny-t5", "full", "merged"].run.config["data_path"]
    for case, tuning in ((CASES[0], "full"), (CASES[0], "lora"), (CASES[5], "full")):
        settings = {
            **SETTINGS, "data_path": str(Path(data).parent), "backbone": str(made[case].folder),
            "tuning": tuning, "prompt": "numbered", "epochs": 1,
        }  # fmt: skip
        results = run_recbole_e2urec("LLMRec", "small", config_dict=settings)
        assert results["rows"][0]["test"]["logloss"] > 0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, beside the run that made it."""
    return make_model(tmp_path_factory.mktemp("shop"), epochs=1, eval_step=1)


def test_models_of_runs_and_of_folders_are_exported(shop: Path, capsys) -> None:
    saved = f"--checkpoint_dir={shop.parent / 'saved'}"
    assert cli.main(["export", "--output=a", "--format=merged", saved]) == 0
    assert cli.main(["export", "--output=b", "--format=merged", f"--checkpoint={shop}"]) == 0
    assert "LLMRec of small is in b, for plain transformers" in capsys.readouterr().out
    load_recommender(shop).save_pretrained("c", license="cc-by-4.0")
    weights = {Path(name, "model.safetensors").read_bytes() for name in "abc"}
    assert len(weights) == 1
    assert "license: unknown" in Path("a/README.md").read_text()
    assert "license: cc-by-4.0" in Path("c/README.md").read_text()
    assert "The model has carried out no request" in Path("b/README.md").read_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--format=peft"], "(tuning: full), so that it is no adapter; write --format=merged"),
        (["--format=onnx"], "format"),
        ([], "is a model folder already; write --format=merged"),
        (["--format=merged", "--license="], "license is empty"),
        (["--format=merged", "--output=taken"], "output: taken is there and not empty"),
        (["--format=merged", "--model=NPO"], "has its own; drop --model"),
        (["--format=merged", "--checkpoint=nowhere"], "nowhere is no model folder"),
    ],
)
def test_what_cannot_be_written_is_one_line(argv, message, shop: Path, capsys) -> None:
    Path("taken").mkdir()
    Path("taken/file").touch()
    given = {"--checkpoint": str(shop), "--output": "x"}
    given |= dict(argument.split("=") for argument in argv)
    before = set(Path().iterdir())
    assert cli.main(["export", *(f"{key}={value}" for key, value in given.items())]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert set(Path().iterdir()) == before
