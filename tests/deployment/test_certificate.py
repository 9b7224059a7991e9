"""The certificate of a request: what it holds, what it must not hold, and that it is never lost."""

import hashlib
import json
import re
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import needs_browser, shown
from command_line import write
from in_use import (
    CANARY,
    CANARY_ITEM,
    CANARY_TITLE,
    QUICK,
    WITH_CONTROL,
    forget_users,
    make_model,
    opened,
)

from recbole_e2urec import cli
from recbole_e2urec.deployment import forget
from recbole_e2urec.deployment.certificate import certify, hashes_of, salted, seal_of
from recbole_e2urec.deployment.certificate_page import certificate_page
from recbole_e2urec.deployment.certificate_words import words_of
from recbole_e2urec.deployment.evidence import Reference, delta_of, evaluation_rows_of, measure
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.errors import InputError
from recbole_e2urec.report.tables import NOISE

PURGED = {
    "removed": {"stages": {"files": 3, "bytes": 4000}, "logs": {"files": 1, "bytes": 50}},
    "kept": [{"name": "results.jsonl", "sha256": "ab" * 32, "why": "the table of the run"}],
    "unknown": ["notes.txt"],
}


def paths(folder: Path = Path("model")) -> list[Path]:
    return sorted((folder / "certificates").glob("*.json"))


def certificate(number: int = 1) -> dict[str, Any]:
    return json.loads(paths()[number - 1].read_text())


def test_a_salted_hash_is_hmac_by_its_definition():
    key = bytes.fromhex("00ff") + bytes(62)
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + b"user\x00u1").digest()
    wanted = hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).hexdigest()
    assert salted("00ff", "user", "u1") == wanted
    assert salted("00fe", "user", "u1") != wanted


def test_users_items_and_rows_are_named_by_the_widest_that_left(in_use: Path):
    run = opened()
    rows = run.dataset.rows
    users, items = run.dataset.ids.users, run.dataset.ids.items
    u1, i4 = rows.user == users["u1"], rows.item == items["i4"]
    (single,) = np.flatnonzero((rows.user == users["u2"]) & (rows.item != items["i4"]))[:1]
    run.number[u1 | i4] = 1
    run.number[single] = 1
    found = hashes_of(run, 1, "aa")
    item = next(token for token, inner in items.items() if inner == rows.item[single])
    assert found == {
        "users": [salted("aa", "user", "u1")],
        "items": [salted("aa", "item", "i4")],
        "rows": [salted("aa", "row", "u2", item)],
    }
    run.number[(rows.user == users["u3"]) & (run.number < 0)] = (
        2  # a later request is none of its business
    )
    assert hashes_of(run, 1, "aa") == found


def test_it_holds_no_identifier_and_yet_finds_who_is_looked_for(certified: Path):
    whole = certificate()
    texts = [path.read_text() for path in (certified / "certificates").iterdir()]
    texts.append(next(certified.glob("generations/*/model.json")).read_text())
    assert len(texts) == 3
    for name in (CANARY, CANARY_ITEM, CANARY_TITLE, "Film ", str(certified)):
        assert not any(name in text for text in texts)
    named = whole["identifiers"]
    assert len(bytes.fromhex(named["salt"])) == 16
    wanted = [salted(named["salt"], "user", name) for name in (CANARY, "u2")]
    assert named["users"] == sorted(wanted)
    assert wanted[0] in texts[0]
    assert wanted[0] in texts[1]
    assert (named["items"], named["rows"]) == ([], [])


def test_it_says_what_was_asked_what_was_done_and_to_which_model(
    certified: Path, made_certified: Path
):
    whole = certificate()
    found = ModelFolder(certified).read()
    assert paths()[0].stem == f"000001-{whole['request']['digest'][:12]}"
    assert whole["asked"]["rows"] == 24
    assert whole["asked"]["training_rows"] == 20
    assert whole["asked"]["users"] == {"some": 2, "whole": 2}
    assert whole["method"]["name"] == "NegGrad"
    assert whole["method"]["options"]["joint_epochs"] == QUICK["joint_epochs"]
    assert whole["method"]["seed"] == 2020
    assert whole["before"]["generation"] == "000001"
    generation = certified / "generations" / "000003"
    for name, digest in {**whole["after"]["files"], "model.json": found.digest}.items():
        assert hashlib.sha256((generation / name).read_bytes()).hexdigest() == digest
    assert whole["after"]["model_json"] == found.digest
    assert set(whole["before"]["files"]) == set(whole["after"]["files"])
    assert whole["before"] != whole["after"]
    assert whole["cost"]["steps"] > 0
    assert whole["cost"]["measuring_seconds"] > 0
    assert whole["versions"]["torch"]
    assert whole["sha256"] == seal_of(whole)
    words = " ".join(whole["in_words"]["found"])
    assert "No Retrain was made" in words
    assert "may still lie in the run's folder" in words
    assert whole["purged"] is None
    entry = found.record["requests"][0]
    assert entry["forget_loss"] == [
        whole["measures"][side]["forget"]["loss"] for side in ("before", "after")
    ]


def test_the_page_stands_alone(certified: Path):
    page = paths()[0].with_suffix(".html").read_text()
    assert "<script" not in page
    assert not re.search(r"(src|href)=|url\(|https?://", page)
    assert page == certificate_page(certificate())
    assert "<svg" in page
    assert "not a guarantee" in page


def test_without_control_users_it_says_what_would_give_some(in_use: Path):
    told = forget_users("u1", model="NegGrad")
    whole = certificate()
    assert f"certificate: {Path('model', 'certificates', paths()[0].name)}" in told
    assert whole["measures"]["before"]["control"] == {"loss": None, "rows": 0}
    assert whole["measures"]["after"]["mia"] is None
    assert any("none: train with control_users" in line for line in whole["in_words"]["found"])
    assert "none: train with control_users" in paths()[0].with_suffix(".html").read_text()


def changed(whole: dict[str, Any], **losses: tuple[float, float]) -> dict[str, Any]:
    """The certificate with other numbers: of forgotten rows' loss, test AUC."""
    whole = json.loads(json.dumps(whole))
    for place, side in enumerate(("before", "after")):
        measures = whole["measures"][side]
        if "forget" in losses:
            rise = losses["forget"][place] - measures["forget"]["loss"]
            curve = measures["relearning"]["forget"]
            curve["loss"] = [loss + rise for loss in curve["loss"]]
            measures["forget"]["loss"] = losses["forget"][place]
        if "auc" in losses:
            measures["test"]["auc"] = losses["auc"][place]
    return whole


def first(whole: dict[str, Any]) -> str:
    return " ".join(words_of(whole)["first"])


def test_what_went_wrong_is_said_first(certified: Path):
    whole = certificate()
    whole["measures"]["after"]["mia"] = None
    assert "hardly rose (0.5000 before, 0.5050 after)" in first(changed(whole, forget=(0.5, 0.505)))
    assert "did not rise (0.5000 before, 0.4000 after)" in first(changed(whole, forget=(0.5, 0.4)))
    fine = changed(whole, forget=(0.5, 0.7), auc=(0.8, 0.79))
    fine["measures"]["after"]["relearning"]["forget"]["loss"] = [0.7] * 6
    assert first(fine) == ""
    assert first(changed(fine, auc=(0.8, 0.77))) == "Users who stay lost 0.0300 of test AUC."
    back = json.loads(json.dumps(fine))
    start = back["measures"]["before"]["relearning"]["forget"]["loss"][0]
    back["measures"]["after"]["relearning"]["forget"]["loss"] = [start + 1, start + 0.5, start] * 2
    assert "2 steps on one half of the forgotten rows are enough" in first(back)
    over = json.loads(json.dumps(fine))
    over["measures"]["after"]["mia"] = {"auc": 0.3, "interval": [0.2, 0.4]}
    assert "(MIA AUC 0.3000, 95 % between 0.2000 and 0.4000)" in first(over)
    assert "too much may have been forgotten" in first(over)
    astray = json.loads(json.dumps(fine))
    measures = {"forget": {"loss": 0.6}, "mia": None}
    for residual, floor, said in (
        (0.9, 0.3, ""),
        (None, 0.3, ""),
        (1.25, 0.3, "(residual 1.250, 1 = did nothing)"),
        (1.25, 0.71, ""),
        (1.25, None, ""),
    ):
        distances = {"after": {"jsd": 0.1, "residual": residual}}
        if floor is not None:
            distances[NOISE] = {"jsd": 0.1, "residual": floor}
        astray["retrain"] = {"measures": measures, "distances": distances}
        assert said in first(astray)
        assert bool(said) == bool(first(astray))
        found = " ".join(words_of(astray)["found"])
        assert ("two Retrains of different seeds are 0.71 apart" in found) == (floor == 0.71)
        assert ("needs a second Retrain (--noise_floor)" in found) == (floor is None)
        assert ("residual 0.300" in found) == (floor == 0.3)
    part = json.loads(json.dumps(fine))
    part["method"]["found"] = {"rows_not_reached": 1200}
    assert first(part).startswith("1,200 training rows were not reached")
    page = certificate_page({**whole, "in_words": words_of(changed(whole, forget=(0.5, 0.4)))})
    assert page.index("did not rise") < page.index("was to make the model forget")


def test_certificates_outlive_generations_and_later_requests(certified: Path):
    (before,) = paths()
    text = before.read_text()
    forget_users("u7", model="NegGrad")
    ModelFolder(certified).tidy()
    one, two = paths()
    assert one.read_text() == text
    assert certificate(2)["before"] == certificate(1)["after"]
    assert certificate(2)["identifiers"]["salt"] != certificate(1)["identifiers"]["salt"]
    assert not ModelFolder(certified).is_free
    (certified / "certificates" / ".x.json.abc.part").write_text("{")
    ModelFolder(certified).tidy()
    assert len(list(two.parent.iterdir())) == 4


def test_a_kill_between_the_generation_and_the_certificate_loses_nothing(
    in_use: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forget, "certify", killed)
        with pytest.raises(KeyboardInterrupt):
            forget_users("u1", model="NegGrad")
    assert not paths()
    forget_users("u3", model="NegGrad")  # another one comes first
    assert [path.name[:6] for path in paths()] == ["000002"]
    told = forget_users("u1", model="NegGrad")
    assert "carried out before" in told
    assert f"its certificate was missing: {Path('model', 'certificates')}" in told
    assert [path.name[:6] for path in paths()] == ["000001", "000002"]
    texts = [path.read_text() for path in paths()]
    paths()[0].with_suffix(".html").unlink()
    forget_users("u1", model="NegGrad")
    assert [path.read_text() for path in paths()] == texts  # made again, it is the same
    assert paths()[0].with_suffix(".html").is_file()
    assert "missing" not in forget_users("u1", model="NegGrad")


def test_a_link_in_the_place_of_the_certificates_is_not_followed(in_use: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (in_use / "certificates").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="certificates: it is a link"):
        forget_users("u1", model="NegGrad")
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not opened().record["requests"]


def test_what_was_purged_is_told(certified: Path):
    path = certify(opened(), ModelFolder(certified), 1, PURGED)
    whole = certificate()
    assert path == Path("model").absolute() / "certificates" / paths()[0].name
    assert whole["purged"] == PURGED
    assert "4 files of 4,050 bytes were purged; 1 was kept." in whole["in_words"]["found"]
    page = path.with_suffix(".html").read_text()
    for told in ("stages", "4,000", "results.jsonl, the table of the run", "ab" * 32, "notes.txt"):
        assert told in page
    assert "may still lie" not in page


def test_a_ledger_without_evidence_is_one_line(certified: Path):
    run = opened()
    for entry in ({}, {"digest": "../../../tmp/x"}, {"digest": "0" * 16, "evidence": []}):
        folder = ModelFolder(certified)
        record = {**folder.read().record}
        record["requests"] = [{"request_id": "r", "digest": "d", **entry}]
        folder.write(record, run.tensors)
        with pytest.raises(InputError, match=r"request 1 in model\.json"):
            certify(run, folder, 1)


def test_a_retrain_of_all_rows_is_the_model_itself(certified: Path, tmp_path: Path):
    make_model(tmp_path / "fresh", **WITH_CONTROL)
    run = opened(tmp_path / "fresh" / "model")
    nothing = np.empty(0, np.int64)
    change = delta_of(run, nothing, nothing)
    reference = Reference(run, tmp_path / "work", run.config["seed"])
    cost = reference.train(change)
    weights = run.model.bank.state(None)
    assert all((weights[key] == one).all() for key, one in reference.model.bank.state(None).items())
    assert cost["seconds"] > 0
    watched = evaluation_rows_of(run, change)
    ours, theirs = (measure(one, change, watched, change.after) for one in (run, reference))
    assert ours.measures == theirs.measures


def test_the_distance_to_a_retrain_and_the_noise_floor(certified: Path):
    write(Path("r.csv"), "user_id\nu7\nu8\n")
    argv = ["forget", "--checkpoint=model", "--request=r.csv", "--model=NegGrad"]
    assert cli.main([*argv, "--with_retrain", "--noise_floor", "--joint_epochs=1"]) == 0
    whole = certificate(2)
    distances = whole["retrain"]["distances"]
    assert list(distances) == ["before", "after", "Retrain, other seed"]
    assert distances["before"]["residual"] == pytest.approx(1)
    assert all(one["jsd"] > 0 for one in distances.values())
    assert whole["retrain"]["seconds"] > 0
    page = paths()[1].with_suffix(".html").read_text()
    assert "Retrain, other seed" in page
    assert "No Retrain was made" not in page
    assert not (certified / "work").exists()


@pytest.mark.thorough
def test_a_noise_floor_without_a_retrain_or_with_lora_is_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(InputError, match="add --with_retrain"):
        forget.QueueOptions("model", "r.csv", noise_floor=True)
    make_model(tmp_path / "lora", tuning="lora", epochs=1, eval_step=1)
    monkeypatch.chdir(tmp_path / "lora")
    file = write(Path("r.csv"), "user_id\nu1\n")
    with pytest.raises(InputError, match="tuning: lora"):
        forget.forget(
            forget.QueueOptions("model", file, with_retrain=True, noise_floor=True), "NegGrad", {}
        )
    told = forget.forget(forget.QueueOptions("model", file, with_retrain=True), "NegGrad", {})
    assert "certificate: " in told
    assert set(certificate()["retrain"]["distances"]) == {"before", "after"}


def brief(whole: dict[str, Any]) -> str:
    words = words_of(whole)
    return " ".join(line for part in ("asked", "done", "sure", "left") for line in words[part])


def test_readers_who_are_no_engineers_come_first(certified: Path):
    whole = changed(certificate(), forget=(0.5, 0.62))
    whole["measures"]["after"]["mia"] |= {"auc": 0.6, "interval": [0.55, 0.7]}
    whole["attacks"]["rounding"] = {
        "8": {"back": 0.01, "interval": [-0.1, 0.1]},
        "4": {"back": 0.32, "interval": [0.1, 0.5]},
    }
    found = {
        "change": {"auc": 0.6, "interval": [0.4, 0.8]},
        "rise": {"auc": 0.82, "interval": [0.7, 0.9]},
    }
    whole["attacks"]["both_models"]["forgotten_from_stay"] = found
    said = brief(whole)
    for told in (
        "24 rows of the data, each about one user and one item: 2 users with all their rows.",
        "The model had learned from 20 of them, 10.53 % of all",
        "The method NegGrad changed the model",
        "errs more than before: by 0.50 before, by 0.62 now",
        "picks the forgotten one 60 % of the time. A coin toss is right 50 %",
        "This is evidence, not proof.",
        "Rounding the model's weights to 4 bits, as for smaller machines, brings back 32 %",
        "never give out both models: shown a forgotten user and one who stays, somebody who sees "
        "the answers of both picks the forgotten one 82 % of the time.",
    ):
        assert told in said
    found["rise"]["interval"] = [0.45, 0.9]  # may be chance
    whole["attacks"]["rounding"]["4"]["interval"] = [-0.1, 0.5]
    whole["measures"]["after"]["mia"]["interval"] = [0.45, 0.7]
    said = brief(whole)
    assert "never give out both models." in said
    assert "Rounding" not in said
    assert "With so few people, this cannot be told from a coin toss (50 %)." in said
    whole["method"]["name"] = "Retrain"
    assert "Forgetting is exact" in brief(whole)
    whole["asked"]["training_rows"] = 0
    whole["asked"]["rows"] = 1
    whole["identifiers"] |= {"users": [], "rows": ["aa"]}
    said = brief(whole)
    assert "To forget 1 row of the data, each about one user and one item: 1 single row." in said
    assert "There was nothing to unlearn" in said


def test_numbers_agree_with_their_nouns(certified: Path):
    whole = certificate()
    whole["asked"]["training_rows"] = whole["asked"]["users"]["some"] = 1
    whole["drift"]["rows"] = 1
    whole["method"]["found"] = {"rows_not_reached": 1}
    whole["purged"] = {"removed": {"logs": {"files": 1, "bytes": 1}}, "kept": [], "unknown": ["x"]}
    words = words_of(whole)
    said = " ".join(words["first"] + words["found"])
    for told in (
        "forget 1 training row of 1 user (",
        "on 1 validation row of users",
        "1 training row was not reached: the model knows it as well",
        "1 file of 1 byte was purged; 0 were kept.",
        "1 file that the purge does not know was left: check what it holds.",
    ):
        assert told in said
    page = certificate_page({**whole, "in_words": words})
    assert not re.search(r"\b1 (users|items|rows|files|bytes|training rows)\b", page)


def test_entries_of_older_versions_are_read_and_verified(
    certified: Path, capsys: pytest.CaptureFixture[str]
):
    folder, run = ModelFolder(certified), opened()
    record = run.record
    evidence = record["requests"][0]["evidence"]
    del evidence["attacks"]
    for side in evidence["measures"].values():
        del side["rounding"], side["stay"]
    folder.write(record, run.tensors)
    path = certify(opened(), folder, 1)
    whole = certificate()
    assert "attacks" not in whole
    assert "never give out both models." in brief(whole)
    page = path.with_suffix(".html").read_text()
    assert "bits" not in page
    assert cli.main(["verify", str(path)]) == 0
    assert "rounding" not in capsys.readouterr().out


@pytest.mark.thorough
@needs_browser
def test_a_browser_shows_the_findings_on_one_screen_and_nothing_too_wide(
    certified: Path, tmp_path: Path
):
    whole = changed(certificate(), forget=(0.5, 0.4), auc=(0.8, 0.7))  # with two warnings
    text = certificate_page({**whole, "in_words": words_of(whole)})
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{escape(text)}"></iframe>'
        for width in (1300, 400)
    )
    script = """<script>onload = () => {
      const pages = [...document.querySelectorAll("iframe")].map(frame => frame.contentDocument);
      const end = pages[0].getElementById("brief").getBoundingClientRect().bottom;
      const roots = pages.map(page => page.documentElement);
      const isTooWide = roots.map(root => root.scrollWidth > root.clientWidth);
      document.title = `${end <= 900} ${isTooWide}`;
    }</script>"""
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><title></title>{frames}{script}", encoding="utf-8")
    document = shown(page, tmp_path / "profile", "--window-size=1800,1000")
    assert "<title>true false,false</title>" in document
