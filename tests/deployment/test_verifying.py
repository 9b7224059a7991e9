"""``recbole-e2urec verify``: passes on what is untouched, and finds each kind of tampering."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_use import forget_users
from safetensors.torch import load_file, save_file
from test_certificate import PURGED, certificate, opened, paths

from recbole_e2urec import cli
from recbole_e2urec.deployment.certificate import certify, seal_of
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.verify import differing

pytestmark = pytest.mark.usefixtures("certified")
GENERATION = Path("model/generations/000003")


def verify(capsys, *more: str, number: int = 1, code: int = 0) -> list[str]:
    """Lines of a verification that ends with this code."""
    found = cli.main(["verify", str(paths()[number - 1]), *more])
    told = capsys.readouterr()
    assert (found, told.err) == (code, "")
    return told.out.splitlines()


def failed(lines: list[str]) -> list[str]:
    return [line.removeprefix("FAILED").strip() for line in lines if line.startswith("FAILED")]


def edit(path: Path, change: Callable[[dict[str, Any]], Any], sealed: bool = False) -> None:
    whole = json.loads(path.read_text())
    change(whole)
    if sealed:
        whole["sha256"] = seal_of(whole)
    path.write_text(json.dumps(whole))


def reseal() -> None:
    """Write all hashes of the folder anew, as an attacker would."""
    record = json.loads((GENERATION / "model.json").read_text())
    for name in record["files"]:
        record["files"][name] = hashlib.sha256((GENERATION / name).read_bytes()).hexdigest()
    text = json.dumps(record)
    (GENERATION / "model.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    Path("model/current.json").write_text(json.dumps({"generation": "000003", "sha256": digest}))


@pytest.mark.thorough
def test_an_untouched_folder_passes_after_one_request_and_after_two(capsys, tmp_path: Path):
    lines = verify(capsys)
    assert lines[-1] == "nothing failed"
    assert not failed(lines)
    for told in (
        "ok                 weights.safetensors is what model.json says",
        "ok                 request 1 left the present one",
        "ok                 salted hashes: 2 users, 0 items, 0 rows",
        "ok                 test utility after, within 0.0001",
        "ok                 relearning after, within 0.01",
        "ok                 the page says the same",
        "cannot be checked  measures before (that model is gone, as it should be)",
    ):
        assert told in lines
    forget_users("u7", model="NegGrad")
    second = verify(capsys, number=2)
    assert "ok                 request 2 left the present one" in second
    lines = verify(capsys)
    assert not failed([*lines, *second])
    assert "ok                 request 1 left what request 2 had" in lines
    assert "ok                 request 2 left the present one" in lines
    (after,) = (line for line in lines if line.startswith("cannot be checked  measures after ("))
    then = certificate()["measures"]["after"]["forget"]["loss"]
    assert "1 later requests changed the model; the loss of its forgotten rows is" in after
    assert f"now and was {then:.4f} then" in after
    assert any("of the present model, as after request 2" in line for line in lines)
    paths()[1].unlink()
    lines = verify(capsys)
    assert "cannot be checked  certificate of request 2 (it is not there)" in lines
    copy = Path(shutil.copy(paths()[0], tmp_path / "filed.json"))
    assert cli.main(["verify", str(copy), "--checkpoint=model"]) == 0
    assert "there is no filed.html beside it" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["weights", "forgotten", "sample"])
def test_a_changed_byte_of_a_model_file_fails(name, capsys):
    path = GENERATION / f"{name}.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    lines = verify(capsys, code=1)
    assert failed(lines) == [f"{name}.safetensors is what model.json says (different: all of it)"]
    assert "the folder is damaged" in lines[-2]


def test_a_lost_file_and_a_changed_model_json_fail(capsys):
    (GENERATION / "sample.safetensors").rename("elsewhere")
    (told,) = failed(verify(capsys, code=1))
    assert told.startswith("sample.safetensors (No such file")
    (GENERATION / "sample.safetensors").symlink_to(Path("elsewhere").absolute())
    assert failed(verify(capsys, code=1)) == ["sample.safetensors (it is a link)"]
    text = (GENERATION / "model.json").read_text()
    (GENERATION / "model.json").write_text(text.replace('"seed": 2020', '"seed": 2021'))
    (told,) = failed(verify(capsys, code=1))
    assert "model.json: it is not what was written" in told


def test_other_weights_with_all_hashes_made_anew_fail(capsys):
    weights = load_file(GENERATION / "weights.safetensors")
    save_file(
        {name: weight * 1.5 for name, weight in weights.items()},
        GENERATION / "weights.safetensors",
    )
    reseal()
    told = failed(verify(capsys, code=1))
    assert (
        "request 1 left the present one (different: files.weights.safetensors, model_json)" in told
    )
    assert any(line.startswith("test utility after") for line in told)
    assert any(line.startswith("losses of forgotten") for line in told)


def test_a_row_that_is_put_back_fails(capsys):
    tensors = load_file(GENERATION / "forgotten.safetensors")
    kept = {name: one[:-1].clone() for name, one in tensors.items()}
    save_file(kept, GENERATION / "forgotten.safetensors")
    reseal()
    told = failed(verify(capsys, code=1))
    assert any(line.startswith("counts of what was asked for (different: ") for line in told)


def forged(whole: dict[str, Any]) -> None:
    """Make it say something else in every part."""
    whole["measures"]["after"]["forget"]["loss"] = 9.0
    whole["method"]["name"] = "Retrain"
    whole["request"]["date"] = "2020-01-01T00:00:00+00:00"
    whole["identifiers"]["users"][0] = "0" * 64
    whole["identifiers"]["salt"] = "00" * 16
    whole["before"]["model_json"] = "0" * 64
    whole["after"]["files"]["weights.safetensors"] = "0" * 64
    whole["in_words"]["cannot_show"][0] = "All is well."


def test_an_edited_certificate_fails(capsys):
    edit(paths()[0], lambda whole: whole["cost"].update(steps=1))
    seal, ledger = failed(verify(capsys, code=1))
    assert seal == "the certificate is as it was written (different: all of it)"
    assert ledger == "all else that it says stands in model.json (different: cost.steps)"


def test_a_certificate_that_is_forged_with_its_own_hash_fails(capsys):
    edit(paths()[0], forged, sealed=True)
    told = failed(verify(capsys, code=1))
    for line in (
        "request 1 began with the model that its certificate names (different: model_json)",
        "request 1 left the present one (different: files.weights.safetensors)",
        "salted hashes: 2 users, 0 items, 0 rows (different: salt, users[0])",
        "its words follow from its numbers (different: cannot_show[0])",
    ):
        assert line in told
    (ledger,) = (line for line in told if line.startswith("all else"))
    assert "different: after.files.weights.safetensors, before.model_json, measures" in ledger
    assert not any("as it was written" in line for line in told)


def test_a_purge_that_was_not_told_in_words_fails(capsys):
    purged = {"removed": {}, "kept": [], "unknown": []}
    edit(paths()[0], lambda whole: whole.update(purged=purged), sealed=True)
    words, _ = failed(verify(capsys, code=1))
    assert words.startswith("its words follow from its numbers (different: found[")


def test_an_edited_page_fails(capsys):
    page = paths()[0].with_suffix(".html")
    page.write_text(page.read_text().replace("not a guarantee", "a guarantee"))
    assert failed(verify(capsys, code=1)) == ["the page says the same (different: all of it)"]


@pytest.mark.thorough
def test_a_later_certificate_that_breaks_the_chain_fails(capsys):
    forget_users("u7", model="NegGrad")
    edit(paths()[1], lambda whole: whole["after"].update(model_json="0" * 64), sealed=True)
    told = failed(verify(capsys, code=1))
    assert told == ["request 2 left the present one (different: model_json)"]
    paths()[1].write_text("{")
    (told,) = failed(verify(capsys, code=1))
    assert told.startswith("certificate of request 2 (")


def test_what_was_kept_in_a_purge_is_hashed_where_it_is(certified: Path, capsys):
    (certified / "audit.txt").write_text("kept")
    digest = hashlib.sha256(b"kept").hexdigest()
    files = [*PURGED["kept"], {"name": "audit.txt", "sha256": digest, "why": "audit"}]
    certify(opened(), ModelFolder(certified), 1, {**PURGED, "kept": files})
    lines = verify(capsys)
    assert "ok                 kept: audit.txt" in lines
    assert "cannot be checked  kept: results.jsonl (it is not in the folder)" in lines
    (certified / "audit.txt").write_text("changed")
    assert failed(verify(capsys, code=1)) == ["kept: audit.txt (different: all of it)"]


def test_without_the_data_the_rest_cannot_be_checked(capsys, tmp_path: Path):
    (tmp_path / "empty" / "small").mkdir(parents=True)
    lines = verify(capsys, f"--data_path={tmp_path / 'empty'}")
    assert "ok                 request 1 left the present one" in lines
    assert lines[-2].startswith("cannot be checked  the rest")


def test_a_certificate_of_another_version_keeps_its_words(capsys):
    edit(paths()[0], lambda whole: whole["versions"].update(recbole_e2urec="0.0.1"), sealed=True)
    lines = verify(capsys, code=1)
    assert any("they are of version 0.0.1" in line for line in lines)
    assert len(failed(lines)) == 1  # model.json has another version


def refused(capsys, *argv: str) -> str:
    assert cli.main(["verify", *argv]) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert told.out == ""
    return line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no certificate"),
        ("{", "is no certificate"),
        ("[]", "it holds no mapping"),
        ("[" * 100_000, "is no certificate"),
        ("\x00", "is no certificate"),
        ('{"cost": NaN}', "is no certificate"),
        ('{"cost": ' + "[" * 980 + "]" * 980 + "}", "is no certificate"),
        ("{}", "format is missing or of another kind"),
        ('{"format": true}', "format is missing or of another kind"),
    ],
)
def test_what_is_no_certificate_is_one_line(text, message, capsys):
    paths()[0].write_text(text)
    assert message in refused(capsys, str(paths()[0]))


@pytest.mark.parametrize("size", [10, 1000, -3])
def test_a_truncated_certificate_is_one_line(size, capsys):
    data = paths()[0].read_bytes()
    paths()[0].write_bytes(data[:size])
    assert "is no certificate" in refused(capsys, str(paths()[0]))


def kept(name: str) -> dict[str, Any]:
    return {"removed": {}, "kept": [{"name": name, "sha256": "", "why": ""}], "unknown": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: whole["after"].update(generation="../../x"), "could lead out"),
        (lambda whole: whole["after"].update(generation="000002\n"), "could lead out"),
        (lambda whole: whole["before"]["files"].update({"../x": "0"}), "could lead out"),
        (lambda whole: whole["before"]["files"].update({"/etc/x": "0"}), "could lead out"),
        (lambda whole: whole.update(purged=kept("../../x")), "could lead out"),
        (lambda whole: whole.update(purged=kept("C:\\x")), "could lead out"),
        (lambda whole: whole.update(purged=kept("/x")), "could lead out"),
        (lambda whole: whole.update(purged=kept("")), "could lead out"),
        (lambda whole: whole.update(purged={"kept": [{}]}), "nothing that a purge writes"),
        (lambda whole: whole.update(purged={"removed": {"x": 1}}), "nothing that a purge writes"),
        (lambda whole: whole.update(format=7), "format 7 is not known, 1 is"),
        (lambda whole: whole["request"].update(number=2), "carried out no such request"),
        (lambda whole: whole["request"].update(number=0), "carried out no such request"),
        (lambda whole: whole["request"].update(digest="0" * 16), "carried out no such request"),
    ],
)
def test_what_leads_elsewhere_or_is_of_another_folder_is_one_line(change, message, capsys):
    edit(paths()[0], change, sealed=True)
    assert message in refused(capsys, str(paths()[0]))


def test_what_cannot_be_asked_is_one_line(capsys, tmp_path: Path):
    page = str(paths()[0].with_suffix(".html"))
    assert "name the .json file beside it" in refused(capsys, page)
    assert "which one? write recbole-e2urec verify" in refused(capsys)
    assert "No such file" in refused(capsys, "nothing.json")
    copy = str(shutil.copy(paths()[0], tmp_path / "filed.json"))
    assert "lies in no model folder; write --checkpoint=DIR" in refused(capsys, copy)
    assert "is no model folder" in refused(capsys, copy, "--checkpoint=elsewhere")
    assert "has its own; drop it" in refused(capsys, copy, "--model=NPO")


def test_places_that_differ_are_named():
    one = {"a": [1, 2.0, "x"], "b": {"c": None, "d": True}, "e": 1}
    other = {"a": [1, 2.1, "y"], "b": {"c": 0, "d": 1}, "f": 1}
    assert list(differing(one, other)) == ["a[1]", "a[2]", "b.c", "b.d", "e", "f"]
    assert list(differing([1.0], [1.00009], 1e-4)) == []
    assert list(differing([1.0], [1.00011], 1e-4)) == ["[0]"]
    assert list(differing("ab", ["a", "b"])) == ["all of it"]
    assert list(differing([1], [1, 2])) == ["all of it"]
    assert list(differing(float("nan"), 1.0, 1e-4)) == ["all of it"]
