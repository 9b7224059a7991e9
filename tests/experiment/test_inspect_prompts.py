"""``--show_prompts``: the prompts of real rows, in the terminal and as a page, without training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atomic_files import RUN, TITLES, write_table
from command_line import as_arguments, write
from splits import choose_forget

from recbole_e2urec import cli
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetOptions
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.comparison import run_comparison
from recbole_e2urec.experiment.run import parts_of
from recbole_e2urec.quick_start import run_recbole_e2urec

TEMPLATE = """
user: "{{ user_id }} is {{ age }}"
history: "Seen:"
entry: "{{ item_id }} {{ movie_title }} {{ genre }} {{ rating }}"
question: "{{ movie_title }} ({{ genre }})?"
"""


def shown(data: Path, model: str = "E2URec", **more: Any) -> dict[str, Any]:
    given = {"data_path": str(data), "title_field": "movie_title", "show_prompts": 3, **more}
    return run_recbole_e2urec(model, "small", config_dict=given)


def forgotten(config: Any) -> set[str]:
    """Tokens of the users that the request names."""
    dataset = load_dataset(config)
    options = config.options(ForgetOptions)
    split = choose_forget(
        options, parts_of(config, dataset).splits.train, dataset.rows, dataset.ids
    )
    inner = set(dataset.rows.user[split.forget].tolist())
    return {token for token, user in dataset.ids.users.items() if user in inner}


def test_the_chosen_template_is_filled_for_real_rows_by_recboles_names(
    small_data: Path, tmp_path: Path
) -> None:
    made = shown(
        small_data,
        prompt=write(tmp_path / "mine.yaml", TEMPLATE),
        user_fields=["user_id", "age"],
        item_fields=["genre"],
        history_length=2,
    )
    assert len(made["prompts"]) == 3
    for prompt in made["prompts"]:
        fields = prompt.fields
        assert fields.keys() == {"user_id", "item_id", "rating", "label", "timestamp"}
        assert fields["label"] == str(int(int(fields["rating"]) >= 4))
        age = 20 + int(fields["user_id"][1:])
        genre = f"g{int(fields['item_id'][1:]) % 3}"
        lines = [f"{fields['user_id']} is {age}"]
        lines += ["Seen:"] * bool(prompt.history)
        for earlier in prompt.history:
            assert float(earlier["timestamp"]) < float(fields["timestamp"])
            kind = f"g{int(earlier['item_id'][1:]) % 3}"
            lines.append(f"{earlier['item_id']} {earlier['title']} {kind} {earlier['rating']}")
        assert prompt.text == "\n".join([*lines, f"{prompt.title} ({genre})?"])
        assert prompt.length == f"{prompt.tokens} tokens; cut: nothing"


def test_nothing_is_trained_and_only_the_page_is_written(small_data: Path) -> None:
    made = shown(small_data)
    files = [path for path in Path.cwd().rglob("*") if path.is_file()]
    assert [path for path in files if path.parent.parent.name != "data"] == [
        (RUN / "prompts.html").absolute()
    ]
    assert (made["page"], made["rows"]) == ("saved/small.e2urec-run/prompts.html", [])


@pytest.mark.parametrize("by", ["user", "item", "interaction"])
def test_rows_of_those_who_stay_show_nothing_that_is_forgotten(
    small_data: Path, small_config: Any, by: str
) -> None:
    config = small_config("E2URec", forget_by=by)
    dataset = load_dataset(config)
    train = parts_of(config, dataset).splits.train
    split = choose_forget(config.options(ForgetOptions), train, dataset.rows, dataset.ids)
    users, items = (
        {at: token for token, at in ids.items()} for ids in (dataset.ids.users, dataset.ids.items)
    )
    pairs = {
        (users[user], items[item])
        for user, item in zip(
            dataset.rows.user[split.forget], dataset.rows.item[split.forget], strict=True
        )
    }
    prompts = shown(small_data, forget_by=by, show_prompts=999)["prompts"]
    assert len(prompts) == len(split.retain)
    for prompt in prompts:
        user = prompt.fields["user_id"]
        seen = {prompt.fields["item_id"], *(earlier["item_id"] for earlier in prompt.history)}
        assert not pairs & {(user, item) for item in seen}
        assert prompt.part == "retain"


def test_a_forgotten_user_is_shown_when_asked_for(small_data: Path, small_config: Any) -> None:
    user = min(forgotten(small_config("E2URec")))
    prompts = shown(small_data, prompt_users=[user], show_prompts=99)["prompts"]
    assert {(prompt.fields["user_id"], prompt.part) for prompt in prompts} == {(user, "forget")}
    assert max(len(prompt.history) for prompt in prompts) == 9  # as before the request


def test_what_does_not_fit_is_told(small_data: Path) -> None:
    whole = shown(small_data, show_prompts=200)["prompts"]
    longest = int(np.argmax([prompt.tokens for prompt in whole]))
    room = whole[longest].tokens - 1
    cut = shown(small_data, show_prompts=200, max_prompt_tokens=room)["prompts"][longest]
    assert cut.cut == 1
    assert cut.history == whole[longest].history[1:]
    assert cut.length == f"{cut.tokens} tokens; cut: the 1 oldest earlier rows"


def test_words_about_the_user_that_do_not_fit_are_told(small_data: Path) -> None:
    bare = {"history_length": 0, "show_prompts": 200}
    questions = shown(small_data, **bare, user_fields=[])["prompts"]
    room = max(prompt.tokens for prompt in questions)
    prompts = shown(small_data, **bare, user_fields=["user_id"], max_prompt_tokens=room)["prompts"]
    assert "cut: the words about the user" in prompts[questions.index(max(
        questions, key=lambda prompt: prompt.tokens
    ))].length  # fmt: skip


def test_titles_are_escaped_in_the_page_and_harmless_in_the_terminal(small_data: Path) -> None:
    bad = "<script>alert(1)</script> \x1b[2J & {{ 7 * 7 }}"
    write_table(
        small_data / "small" / "small.item",
        "item_id:token movie_title:token_seq",
        [[f"i{item}", bad] for item in range(20)],
    )
    made = shown(small_data)
    page = Path(made["page"]).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in made["text"]
    assert "\\x1b[2J & {{ 7 * 7 }}" in made["text"]


def test_data_without_times_and_ratings_shows_neither(tmp_path: Path) -> None:
    rows = [[f"u{place % 9}", f"i{place % 7}", place % 2] for place in range(63)]
    write_table(
        tmp_path / "bare" / "small" / "small.inter", "user_id:token item_id:token label:float", rows
    )
    given = {"title_field": None, "threshold": None, "eval_args": {"order": "RO"}}
    prompts = shown(tmp_path / "bare", **given)["prompts"]
    assert prompts[0].fields.keys() == {"user_id", "item_id", "label"}


def test_the_command_prints_what_the_page_shows(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"data_path": small_data, "title_field": "movie_title", "show_prompts": 2}
    assert cli.main(["--dataset=small", *as_arguments(given)]) == 0
    printed = capsys.readouterr().out
    assert "row 2 of 2, retain: " in printed
    assert printed.endswith("page: saved/small.e2urec-run/prompts.html\n")
    assert "answers: Yes (token" in printed
    page = (RUN / "prompts.html").read_text(encoding="utf-8")
    assert page.count("<pre>") == 2
    assert any(title.replace('"', "&#34;") in page for title in [*TITLES, "Film"])


def test_a_comparison_shows_them_as_well(small_data: Path) -> None:
    given = {"data_path": str(small_data), "show_prompts": 2}
    one = shown(small_data, show_prompts=2)["text"]
    lists = (["FM", "NPO"], ["LLMRec", "SISA"])
    for models in lists:
        made = run_comparison("small", config_dict={**given, "model_list": models})
        assert made["text"] == one


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("FM", {}, "show_prompts: FM reads no prompts"),
        ("E2URec", {"show_prompts": -1}, "show_prompts is -1"),
        ("E2URec", {"show_prompts": 0, "prompt_users": "u1"}, "give both"),
        ("E2URec", {"prompt_users": ["nobody"]}, "prompt_users: 'nobody' is no user of small"),
        ("E2URec", {"item_fields": ["studio"]}, "no column 'studio'"),
        ("E2URec", {"item_fields": "genre"}, "item_fields: 'genre' does not do; a list"),
        ("E2URec", {"prompt": "plian"}, "unknown prompt 'plian'; did you mean 'plain'"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    small_data: Path, model: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        shown(small_data, model, **more)
    assert not Path("saved").exists()


def test_a_request_by_a_filter_hides_what_it_names(small_data: Path) -> None:
    made = shown(small_data, forget_where="genre == 'g1'", item_fields=["genre"], show_prompts=8)
    assert {prompt.part for prompt in made["prompts"]} == {"retain"}
    seen = [earlier["item_id"] for prompt in made["prompts"] for earlier in prompt.history]
    assert seen
    assert not [item for item in seen if int(item[1:]) % 3 == 1]
