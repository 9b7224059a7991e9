"""``recbole-e2urec purge`` and ``forget --purge``: what is removed, and what is not."""

import errno
import hashlib
import json
import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command_line import write
from filelock import FileLock
from in_use import QUICK, opened
from torch.utils.tensorboard import SummaryWriter

from recbole_e2urec import cli
from recbole_e2urec.deployment.purge import close_log_handlers, purge, recorded_checkpoint_dir
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.html import SHEETS
from recbole_e2urec.utils.recbole_compat import LateWriter

STAGE = "Original-0123456789abcdef"
LOG = "E2URec-small-Nov-27-2026_01-02-03-abc123"
PAGE = '{% extends "sheet" %}{% block of %}users{% endblock %}'
IN_RUN = {
    f"stages/{STAGE}/weights.safetensors": "Original",
    f"stages/{STAGE}/stage.json": "Original",
    f"stages/{STAGE}/.lock": "Original",
    f"stages/{STAGE}/progress.safetensors": "Original",
    f"stages/{STAGE}/.weights.safetensors.ab3_d5fg.part": "Original",
    "stages/augmented-0123456789abcdef/weights.safetensors": "augmented",
    "stages/SISA3-0123456789abcdef/weights.safetensors": "SISA",
    f"development/stages/{STAGE}/weights.safetensors": "Original",
    "development/request.csv": "requests drawn for tuning",
    "answers/0123456789abcdef.safetensors": "answers",
    "BPR-Nov-27-2026_01-02-03-812-1.pth": "RecBole's checkpoints and pickles",
    "XGBoost-Nov-27-2026_01-02-03-temp-best.pth": "RecBole's checkpoints and pickles",
    "prompts.html": "pages of prompts and users",
    ".prompts.html.ab3_d5fg.part": "parts of files",
    f"log/E2URec/{LOG}.log": "logs",
    f"log_tensorboard/{LOG}/{STAGE}/events.out.tfevents.1.host.2.0": "tensorboard events",
    "wandb/offline-run-20261127_010203-abc12345/files/config.yaml": "wandb's local runs",
    "wandb/debug.log": "wandb's local runs",
    "notes/mine.txt": "other files",
}
BESIDE = {
    "saved/BPR-Nov-27-2026_01-02-03-812-1.pth": "RecBole's checkpoints and pickles",
    "saved/FM-Nov-27-2026_01-02-03.pth.part": "parts of files",
    "saved/XGBoost-Nov-27-2026_01-02-03-temp-best.pth": "RecBole's checkpoints and pickles",
    "saved/S3Rec-small-100.pth": "RecBole's checkpoints and pickles",
    "saved/small-SequentialDataset.pth": "RecBole's checkpoints and pickles",
    "saved/small-for-BPR-dataloader.pth": "RecBole's checkpoints and pickles",
    "saved/.prompts.html.ab3_d5fg.part": "parts of files",
}
OURS = {**{f"saved/small.e2urec-run/{name}": kind for name, kind in IN_RUN.items()}, **BESIDE}
EARLIER = {  # of version 0.7
    f"saved/{name}": kind
    for name, kind in IN_RUN.items()
    if name.startswith(("stages", "development", "answers"))
}
THEIRS = [
    "saved/thesis.pth", "saved/resnet-cifar-10.pth", "saved/model.safetensors",
    "saved/index.html", "saved/.bashrc", "saved/photos/a.jpg", "saved/run/stages/a",
    "saved/e2urec-run/a", "saved/stages/notes.txt", "saved/answers/notes.txt",
    "saved/stages/Original/weights.safetensors", "log/system.log", "log/E2URec/mine.log",
    f"log/BPR/{LOG}.log", "log_tensorboard/mine/readme",
    "wandb/run-20261127_010203-other000/files/config.yaml",
]  # fmt: skip


def put(*names: str, text: str = "recbole") -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write(Path(name), text)


def names(*tops: str) -> set[str]:
    found = (path for top in tops or (".",) for path in Path(top).rglob("*"))
    return {str(path) for path in found if path.is_file() or path.is_symlink()}


def command(*argv: str) -> int:
    return cli.main(["purge", *argv])


def test_every_kind_of_file_is_removed_and_counted(capsys):
    put(*OURS)
    put("saved/any.html", text=SHEETS.from_string(PAGE).render())
    assert command("--checkpoint_dir=saved") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"in {Path('saved').resolve()}:"
    assert told[1].startswith(f"purged {len(OURS) + 1} files of ")
    counted = dict(re.fullmatch(r"  (.+): (\d+), [\d,]+ bytes", line).groups() for line in told[2:])
    wanted = Counter([*OURS.values(), "pages of prompts and users"])
    assert counted == {kind: str(count) for kind, count in wanted.items()}
    assert [str(path) for path in Path().rglob("*")] == ["saved"]


def test_what_version_0_7_wrote_is_removed_with_a_hint_where_more_may_be(capsys):
    put(*EARLIER)
    assert command("--checkpoint_dir=saved", "--dataset=small") == 0
    told = capsys.readouterr().out
    assert f"purged {len(EARLIER)} files of " in told
    assert "also wrote log, log_tensorboard and wandb where it was started" in told
    assert [str(path) for path in Path().rglob("*")] == ["saved"]


def test_files_that_no_run_writes_stay_and_are_named(capsys):
    put(*OURS, *EARLIER, *THEIRS)
    put("saved/faces-TrainDataset.pth", text="somebody's own")
    assert command("--checkpoint_dir=saved") == 0
    assert names() == {*THEIRS, "saved/faces-TrainDataset.pth"}
    (line,) = (one for one in capsys.readouterr().out.splitlines() if "left, as" in one)
    assert "left, as no run writes them; look what they hold: " in line
    for folder in ("photos", "run", "e2urec-run", "stages/Original"):  # they are not opened
        assert f"checkpoint_dir/{folder}/," in line
    assert "a.jpg" not in line
    for name in THEIRS:
        if Path(name).parent in (Path("saved"), Path("saved/stages"), Path("saved/answers")):
            assert name.replace("saved/", "checkpoint_dir/") in line


def test_what_other_data_sets_left_stays(capsys):
    others = [
        "saved/other.e2urec-run/stages/a", "saved/small-2.e2urec-run/a", "saved/S3Rec-other-9.pth",
        "saved/other-Dataset.pth", "saved/small-2-for-BPR-dataloader.pth",
    ]  # fmt: skip
    checkpoint = "saved/DIN-Nov-27-2026_01-02-04.pth"
    put(*others)
    put(checkpoint, text="a recbole config of other")
    put(*OURS, text="a recbole config of small")
    assert command("--checkpoint_dir=saved", "--dataset=small") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"in {Path('saved/small.e2urec-run').resolve()}:"
    assert told[1].startswith(f"purged {len(OURS)} files of ")
    assert names() == {*others, checkpoint}
    assert not any("warning" in line for line in told)
    assert command("--checkpoint_dir=saved", "--dataset=smal") == 0
    assert "purged 0 files" in (told := capsys.readouterr().out)
    assert f"in {Path('saved/smal.e2urec-run').resolve()}, which is not there:" in told
    assert names() == {*others, checkpoint}
    assert command("--checkpoint_dir=saved") == 0
    assert names() == set()


def test_a_model_folder_among_the_runs_stays():
    put("saved/small.e2urec-run/stages/a", "saved/small.e2urec-run/model/generations/000001/a")
    put("saved/other.e2urec-run/a")
    model = Path("saved/small.e2urec-run/model")
    purge(Path("saved"), model, "small")
    assert names() == {str(model / "generations/000001/a"), "saved/other.e2urec-run/a"}


def test_links_are_not_followed(tmp_path: Path):
    put("away/weights.safetensors", "away/stage.json", f"away/{LOG}.log", "away/x.pth")
    put("saved/small.e2urec-run/a")
    inside = Path("saved/small.e2urec-run/link")
    links = {
        f"saved/stages/{STAGE}": "away",
        "saved/other.e2urec-run": "away",
        "saved/BPR-Nov-27-2026_01-02-03.pth": "away/x.pth",
    }
    Path("saved/stages").mkdir()
    for name, target in {**links, inside: "away"}.items():
        Path(name).symlink_to(Path(target).resolve())
    before = names("away")
    purged = purge(Path("saved"))
    assert names("away") == before
    assert all(Path(name).is_symlink() for name in links)
    assert not inside.parent.exists()
    assert purged.removed == {"other files": {"files": 2, "bytes": 7 + inside_size(tmp_path)}}
    assert len(purged.unknown) == 3
    assert all(name.endswith("(a link or no plain file)") for name in purged.unknown)


def inside_size(folder: Path) -> int:
    """Bytes of a link to ``away``."""
    return len(str(folder.resolve() / "away"))


@pytest.mark.parametrize(
    "argv", [["--dry_run"], ["--dry_run=TRUE"], ["--dry_run", "true"], ["--config_files=../d.yaml"]]
)
def test_a_dry_run_says_the_same_and_removes_nothing(argv, tmp_path: Path, monkeypatch, capsys):
    write(tmp_path / "d.yaml", "dry_run: true\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir("here")
    put(*OURS, "saved/results.jsonl")
    before = {name: os.stat(name).st_mtime_ns for name in names()}
    assert command("--checkpoint_dir=saved", *argv) == 0
    would = capsys.readouterr().out
    assert {name: os.stat(name).st_mtime_ns for name in names()} == before
    assert command("--checkpoint_dir=saved") == 0
    assert capsys.readouterr().out == would.replace("would purge", "purged")
    assert names() == {"saved/results.jsonl"}


def test_a_second_purge_does_nothing(capsys):
    put(*OURS, "saved/results.jsonl", "saved/hyper.json")
    command("--checkpoint_dir=saved")
    capsys.readouterr()
    assert command("--checkpoint_dir=saved") == 0
    assert "purged 0 files of 0 bytes" in capsys.readouterr().out


def test_what_is_kept_is_told_with_its_hash():
    put("saved/results.jsonl", text="{}\n")
    put("saved/table.html", text=SHEETS.get_template("sheet").render())
    put(*OURS, "saved/notes")
    told = purge(Path("saved")).as_json()
    digest = hashlib.sha256(b"{}\n").hexdigest()
    assert told["kept"][0] == {
        "name": "checkpoint_dir/results.jsonl", "sha256": digest,
        "why": "measures and settings of every model, no names",
    }  # fmt: skip
    assert told["kept"][1]["name"] == "checkpoint_dir/table.html"
    assert told["unknown"] == ["checkpoint_dir/notes"]
    assert told["removed"]["augmented"] == {"files": 1, "bytes": 7}
    assert json.loads(json.dumps(told)) == told


def test_a_stage_that_is_being_trained_is_not_taken_away():
    put(*OURS)
    before = names()
    with (
        FileLock(f"saved/small.e2urec-run/stages/{STAGE}/.lock"),
        pytest.raises(InputError, match=f"another run is at work in .*{STAGE}; wait"),
    ):
        purge(Path("saved"))
    assert names() == before


def test_a_disk_that_does_not_let_go_is_one_line_and_the_next_purge_goes_on(monkeypatch, capsys):
    put(*OURS)
    original, left = os.unlink, 4

    def unlink(path: Any, **more: Any) -> None:
        nonlocal left
        if not str(path).endswith(".lock"):
            left -= 1
        if left == 0:
            raise OSError(errno.EIO, "Input/output error")
        original(path, **more)

    monkeypatch.setattr(os, "unlink", unlink)
    assert command("--checkpoint_dir=saved") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "purge: cannot remove " in line
    assert "Input/output error; mend that, and give the same command again" in line
    assert names()
    assert command("--checkpoint_dir=saved") == 0
    assert names() == set()


def test_a_folder_that_cannot_be_read_is_one_line(monkeypatch, capsys):
    put(*OURS)

    def scandir(path: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    assert command("--checkpoint_dir=saved") == 2
    assert "cannot read" in capsys.readouterr().err


def test_files_that_are_open_are_not_written_again():
    log = f"saved/small.e2urec-run/log/E2URec/{LOG}.log"
    put(log)
    handler, other = (logging.FileHandler(name) for name in (log, "elsewhere.log"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.addHandler(other)
    writer = LateWriter(lambda: SummaryWriter(f"saved/small.e2urec-run/log_tensorboard/{LOG}"))
    writer.add_scalar("x", 1.0, 0)
    try:
        purge(Path("saved"))
        assert handler not in root.handlers
        assert other in root.handlers
    finally:
        root.removeHandler(handler)
        root.removeHandler(other)
        other.close()
    writer.close()
    assert names("saved") == set()


def test_a_run_of_wandb_ends_first(wandb):
    wandb.run = object()
    close_log_handlers([])
    assert wandb.run is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "purge: what? write --checkpoint_dir=saved"),
        (["--checkpoint_dir=nowhere"], "nowhere is no folder"),
        (
            ["--checkpoint_dir=saved/small.e2urec-run"],
            "name the folder that holds that; purge takes",
        ),
        (["--checkpoint=model", "--dataset=small"], "--dataset=small"),
        (["--checkpoint=nowhere"], "nowhere is no model folder"),
        (["--checkpoint_dir=saved", "--model=E2URec"], "--model=E2URec"),
        (["--checkpoint_dir=saved", "--epochs=3"], "purge: --epochs means nothing here"),
        (["--checkpoint_dir=saved", "--config_files=e.yaml"], "purge: --epochs means nothing"),
        (["--checkpoint_dir=saved", "--dry_run=maybe"], "dry_run: 'maybe' does not do"),
    ],
)
def test_what_cannot_be_purged_is_one_line(argv, message, capsys):
    put(*OURS)
    write(Path("e.yaml"), "epochs: 3\n")
    before = names()
    assert command(*argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert names() == before


def test_a_record_of_places_that_are_no_folders_is_refused():
    for places in ({"checkpoint_dir": "saved", "stage": "a"}, {"checkpoint_dir": "/saved"}, [1]):
        with pytest.raises(InputError, match="places are no folders"):
            recorded_checkpoint_dir({"places": places})
    assert recorded_checkpoint_dir({}) is None


class TestForget:
    """``forget --checkpoint=DIR --request=F --purge``."""

    @pytest.fixture(autouse=True)
    def made(self, in_use: Path, made_model: Path) -> Path:
        """Beside the model folder: another one's run, which it does not name."""
        put(*OURS, text="recbole: small")
        write(Path("r.csv"), "user_id\nu1\n")
        return in_use

    def forget(self, *more: str) -> int:
        given = [f"--{key}={value}" for key, value in QUICK.items()]
        argv = ["forget", "--checkpoint=model", "--request=r.csv", "--model=NegGrad"]
        return cli.main([*argv, *given, *more])

    def certificate(self) -> dict[str, Any]:
        (path,) = Path("model/certificates").glob("*.json")
        return json.loads(path.read_text())

    def test_the_certificate_says_what_was_purged(self, capsys):
        own = ["--purge", "--checkpoint_dir=saved"]
        assert self.forget(*own, "--dry_run") == 0
        assert "would purge" in capsys.readouterr().out
        assert names("saved") == {name for name in OURS if name.startswith("saved")}
        assert self.forget(*own) == 0
        assert names("saved") == set()
        first = self.certificate()["purged"]
        assert first["removed"]["Original"]["files"] == 6
        kept = {one["name"] for one in first["kept"]}
        assert "generations/000003/weights.safetensors" in kept
        (path,) = Path("model/certificates").glob("*.json")
        before = path.read_bytes()
        assert self.forget(*own) == 0
        told = capsys.readouterr().out
        assert "was carried out before" in told
        assert "purged 0 files" in told
        assert path.read_bytes() == before
        put("saved/S3Rec-small-100.pth", f"model/work/{STAGE}/weights.safetensors")
        assert self.forget(*own) == 0
        again = self.certificate()["purged"]["removed"]
        assert again["RecBole's checkpoints and pickles"]["files"] == 8
        assert not Path("model/work").exists()
        assert cli.main(["verify", str(path)]) == 0

    def test_a_purge_that_was_killed_is_completed_by_the_same_command(self, monkeypatch, capsys):
        from recbole_e2urec.deployment import purge

        def killed(found: Any) -> None:
            for one in found.removed[:5]:
                one.path.unlink()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(purge, "_remove", killed)
            assert self.forget("--purge", "--checkpoint_dir=saved") == 130
        assert len(opened().record["requests"]) == 1
        assert self.certificate()["purged"] is None
        assert names("saved")
        assert self.forget("--purge", "--checkpoint_dir=saved") == 0
        assert names("saved") == set()
        assert self.certificate()["purged"]["removed"]

    def test_the_folder_knows_where_its_run_wrote(self, made_model: Path, capsys):
        record = opened().record
        assert record["places"]["checkpoint_dir"] == str(made_model.parent.resolve() / "saved")
        assert cli.main(["purge", "--checkpoint=model", "--dry_run"]) == 0
        told = capsys.readouterr().out
        assert "would purge" in told
        assert "  LLMRec: 3, " in told
        assert "kept: generations/000001/model.json, sha256 " in told

    def test_another_run_in_the_same_place_is_left(self, made: Path, capsys):
        record = made / "generations" / "000001" / "model.json"
        whole = json.loads(record.read_text())
        whole["places"]["checkpoint_dir"] = str(Path("saved").resolve())
        record.write_text(json.dumps(whole))
        digest = hashlib.sha256(record.read_bytes()).hexdigest()
        pointer = {"generation": "000001", "sha256": digest}
        (made / "current.json").write_text(json.dumps(pointer))
        before = names("saved")
        assert cli.main(["purge", "--checkpoint=model"]) == 0
        assert names("saved") == before
        assert "is not, or no more, the folder of the run" in capsys.readouterr().out

    def test_a_folder_that_is_named_without_a_purge_is_refused(self, capsys):
        assert self.forget("--checkpoint_dir=saved") == 2
        assert "write --purge as well" in capsys.readouterr().err
