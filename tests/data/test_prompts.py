from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.data.templates import FieldNames, PromptTemplate, rating_text
from recbole_e2urec.errors import InputError

FOLDER = Path(__file__).parents[2] / "properties" / "prompt"
NAMES = ["plain", "compact", "brief", "numbered"]


def shipped(name):
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return PromptTemplate.from_mapping(values, f"{name}.yaml")


@pytest.mark.parametrize(
    ("rating", "text"),
    [(4.0, "4"), (3.5, "3.5"), (10, "10"), (-0.0, "0"), (np.float32(3.3), "3.3")],
)
def test_rating_text_is_as_people_write_it(rating, text):
    assert rating_text(rating) == text


@pytest.mark.parametrize("rating", [None, np.nan])
def test_rating_text_of_a_missing_rating_is_none(rating):
    assert rating_text(rating) is None


@pytest.mark.parametrize("name", NAMES)
@given(title=st.text(min_size=1))
def test_shipped_templates_show_any_title_as_it_is(name, title):
    template = shipped(name)
    assert title in template.render_entry(title, 4.0, 5.0)
    assert title in template.render_question(title) + " "


@pytest.mark.parametrize("name", NAMES)
def test_titles_are_never_rendered_as_templates(name):
    title = "{{ 7 * 7 }} {% for x in y %} {# note #}"
    assert title in shipped(name).render_question(title)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rating", [None, np.nan])
def test_shipped_templates_have_no_rating_words_without_ratings(name, rating):
    template = shipped(name)
    texts = [
        template.render_history(rated=False),
        template.render_entry("Heat", rating),
        template.render_question("Heat", rated=False),
    ]
    assert not [word for word in ("star", "None", "nan", "4", "5") if word in "".join(texts)]


@pytest.mark.parametrize("name", NAMES)
def test_shipped_templates_leave_out_a_user_without_features(name):
    assert shipped(name).render_user({}) == ""


@pytest.mark.parametrize("name", NAMES)
def test_shipped_templates_end_every_part_but_the_last_in_white_space(name):
    template = shipped(name)
    assert template.render_user({"age": "24"})[-1].isspace()
    assert template.render_entry("Heat", 4.0)[-1].isspace()
    assert template.render_history()[-1:] in ("", "\n")
    assert not template.render_question("Heat")[-1].isspace()


def test_plain_template_worked_example():
    template = shipped("plain")
    user = template.render_user({"age": "24", "zip_code": "85711"})
    assert user == "About the user: age 24, zip code 85711.\n"
    assert template.render_entry("Heat", 3.5, 5.0) == "- Heat: 3.5 stars of 5\n"
    assert template.render_entry("Heat", 1.0, 5.0) == "- Heat: 1 star of 5\n"
    assert template.render_entry("Heat", None, 5.0) == "- Heat\n"
    assert template.render_instruction() == (
        "The more stars, the more the user liked it. Answer with one word only, Yes or No.\n"
    )
    assert template.render_instruction(rated=False) == "Answer with one word only, Yes or No.\n"
    assert template.render_question("Babe") == "Will the user like Babe?\nAnswer:"


def test_compact_template_worked_example():
    template = shipped("compact")
    assert template.render_user({"age": "24", "gender": "M"}) == "24 M\n"
    assert template.render_entry("Heat", 4.0, 5.0) == "Heat 4\n"
    assert template.render_history() == ""
    assert template.render_question("Babe", item="8") == "Babe ?"


def test_numbered_template_names_user_and_item_whatever_else_is_known():
    template = shipped("numbered")
    assert template.render_user({"age": "24", "gender": "M"}, "196") == "user196 24 M\n"
    assert template.render_user({}, "196") == "user196 "
    assert template.render_question("Babe", item="8") == "Babe item8 ?"
    assert template.user_texts(["", "196", "7"]) == ["user196 ", "user7 "]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_numbered_template_tells_users_apart_by_their_tokens(name):
    template = shipped(name)
    known = {"age": "24"}
    assert (template.render_user(known, "1") != template.render_user(known, "2")) is (
        name == "numbered"
    )
    assert template.names_users is (name == "numbered")
    assert template.render_user({}, "1") == ("user1 " if name == "numbered" else "")
    assert bool(template.user_texts(["1"])) is (name == "numbered")


@pytest.mark.parametrize(
    "path", (FOLDER.parent / "dataset").glob("*.yaml"), ids=lambda one: one.stem
)
def test_every_shipped_data_set_has_ten_titles_and_no_user_number(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "user_id" not in values["user_fields"]
    assert values["history_length"] == 10


def test_brief_template_worked_example():
    template = shipped("brief")
    user = template.render_user({"user_id": "34", "zip_code": "85711"})
    entries = [template.render_entry("Heat", 4.0, 5.0), template.render_entry("Babe", None)]
    prompt = "".join([user, *entries, template.render_question("Fargo")])
    assert prompt == "user 34, zip code 85711: Heat 4, Babe, likes Fargo?"


def test_template_ends_a_part_that_does_not_end_itself():
    assert PromptTemplate(entry="{{ title }}", question="{{ title }}").render_entry("a", 1) == "a\n"


def test_catalogue_texts_show_every_item_as_the_template_writes_it():
    template = PromptTemplate(
        entry="i{{ item }}{% if rating %} stars {{ rating }}{% endif %}",
        question="like {{ title }} ?",
        tail="{% if rated %}rated{% endif %}",
    )
    texts = template.catalogue_texts(["", "Heat", "Babe"], ["", "7", "8"])
    assert texts == ["i7\n", "like Heat ?\nrated", "i8\n", "like Babe ?\nrated"]


def test_literal_texts_are_the_words_of_every_branch():
    template = PromptTemplate(
        entry="{{ title }}{% if rating %} stars {{ rating }}{% endif %}",
        question="like {{ title }} ?",
    )
    assert template.literal_texts() == ["stars", "like", "?"]


def test_literal_texts_hold_the_words_inside_expressions():
    assert ";" in shipped("compact").literal_texts()
    assert {"star", "stars"} <= set(shipped("plain").literal_texts())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"entry": "{{ title }}", "queston": "{{ title }}"}, "did you mean 'question'"),
        ({"entry": "{{ title }}"}, "no question"),
        ({"question": "{{ title }}", "entry": None}, "no entry"),
        ({"question": "{{ title }}", "entry": 3}, "entry is 3"),
        ({"question": "{{ title }", "entry": "x"}, "question"),
        ({"question": "{{ titel }}", "entry": "x"}, "'titel' is undefined; it may use: title"),
        ({"question": "{{ title }}", "entry": "{{ stars }}"}, "entry: 'stars' is undefined"),
        ({"question": "Good?", "entry": "x"}, "question does not name the item"),
        ({"question": "{{ title.__class__.mro() }}", "entry": "x"}, "unsafe"),
        ({"question": "{{ title + 1 }}", "entry": "x"}, "question"),
    ],
)
def test_from_mapping_refuses_in_one_line(values, message):
    with pytest.raises(InputError, match=message) as error:
        PromptTemplate.from_mapping(values, "mine.yaml")
    assert "\n" not in str(error.value)


def test_render_user_names_a_feature_that_the_data_lacks():
    template = PromptTemplate(
        entry="{{ title }}", question="{{ title }}", user="{{ features.job }}"
    )
    with pytest.raises(InputError, match=r"user: .*job"):
        template.render_user({"age": "24"})


def test_from_mapping_takes_an_empty_part_as_none():
    template = PromptTemplate.from_mapping(
        {"entry": "{{ title }}", "question": "{{ title }}", "user": None}
    )
    assert template.render_user({"age": "24"}) == ""


NAMES = FieldNames("item_id", "movie_title", "stars", ("class",), ("age", "job"))


def test_templates_may_use_the_names_of_recbole_and_of_the_data():
    template = PromptTemplate(
        entry="{{ movie_title }} {{ stars }} {{ class }}",
        question="{{ item_id }} {{ movie_title }} {{ class or 'unknown' }}",
        user="{{ age }}/{{ job }}",
        names=NAMES,
    )
    assert template.render_entry("Heat", 4.0, 5.0, "7", {"class": "Crime"}) == "Heat 4 Crime\n"
    assert template.render_question("Heat", item="7") == "7 Heat unknown"
    assert template.render_user({"age": "24"}) == "24/\n"  # what a user lacks is empty
    by_recbole = replace(template, user="{{ user_id }}: {{ age }}")
    assert by_recbole.render_user({"age": "24"}, "196") == "196: 24\n"
    assert by_recbole.user_texts(["196"]) == ["196: "]
    assert template.catalogue_texts(["", "Heat"], ["", "7"], [{}, {"class": "Crime"}]) == [
        "Heat None Crime\n", "7 Heat Crime",
    ]  # fmt: skip


def test_a_name_that_the_data_lacks_is_refused_with_all_that_there_are():
    message = r"'genre' is undefined; it may use: title, item, item_id, movie_title, class$"
    with pytest.raises(InputError, match=message):
        PromptTemplate(entry="x", question="{{ title }} {{ genre }}", names=NAMES)


def test_a_column_with_a_name_that_templates_have_is_refused():
    with pytest.raises(InputError, match="item_fields: templates have a 'rated' of their own"):
        FieldNames(items=("rated",))
    with pytest.raises(InputError, match="user_fields: templates have a 'user' of their own"):
        FieldNames(users=("age", "user"))
    FieldNames(users=("user",), user_id="user")  # means the same
    FieldNames(items=("user",))  # no part about items has one


ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ title.__init__.__globals__ }}",
    "{{ title['__class__'] }}{{ title['__class__'].mro() }}",
    "{{ title|attr('__class__') }}{{ (title|attr('__class__')).mro() }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__['os'] }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ '{0.__class__.__mro__}'.format(title) }}",
    "{{ '{a.__class__}'.format_map({'a': title}) }}",
    "{{ dict.mro() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.getcwd() }}",
    "{% extends 'other' %}",
    "{{ title | random }}",
    "{{ lipsum() }}",
    "{% for x in range(10 ** 9) %}{% endfor %}",
    "{{ open('/etc/passwd') }}",
    "{{ __import__('os') }}",
]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("part", ["entry", "question"])
def test_a_template_that_reaches_for_the_interpreter_is_refused(attack, part):
    parts = {"entry": "{{ title }}", "question": "{{ title }}"}
    parts[part] += attack
    with pytest.raises(InputError, match=f"prompt template, {part}: ") as error:
        PromptTemplate.from_mapping(parts)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nor_does_a_template_reach_it_where_the_trial_does_not_look(attack):
    condition = "{% if title == 'Heat' %}" + attack + "{% endif %}"
    if attack.startswith("{% extends"):
        return  # jinja takes it wherever it stands, and the trial with it
    with pytest.raises(InputError, match="prompt template, entry: "):
        PromptTemplate(entry=condition, question="{{ title }}").render_entry("Heat", 4.0)


def test_an_attack_inside_a_title_is_only_text():
    for attack in ATTACKS:
        assert attack in shipped("plain").render_question(attack)
