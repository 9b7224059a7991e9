from pathlib import Path

import pytest
from atomic_files import INTER, rewrite, rewritten, small_interactions

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [
        (2, "four", "rating"),
        (2, "", "rating"),
        (2, "nan", "rating"),
        (3, "2014-05-01", "timestamp"),
        (3, "inf", "timestamp"),
    ],
)
def test_a_cell_that_is_no_number_is_pointed_at(small_config, column, value, name):
    config = rewritten(small_config("FM"), 4, column, value)
    message = rf"small\.inter, line 6, column {name}: '{value}' is not a number"
    with pytest.raises(InputError, match=message):
        load_dataset(config)


def test_labels_of_one_class_are_refused(small_config):
    with pytest.raises(InputError, match=r"every label is 1 \(rating >= 1\).*another threshold"):
        load_dataset(small_config("FM", threshold={"rating": 1}))


def test_labels_other_than_0_and_1_are_refused(small_config):
    config = rewrite(small_config("FM"), small_interactions(), INTER.replace("rating", "label"))
    with pytest.raises(InputError, match="column 'label' holds 2; labels are 0 and 1"):
        load_dataset(config)


def test_labelled_evaluation_without_labels_is_refused(small_config):
    rows = [[user, item, time] for user, item, _, time in small_interactions()]
    config = rewrite(small_config("FM"), rows, "user_id:token item_id:token timestamp:float")
    with pytest.raises(
        InputError, match=r"no labels: the \.inter file has neither a column 'label'"
    ):
        load_dataset(config)


def test_a_rating_that_is_declared_as_text_is_refused(small_config):
    header = INTER.replace("rating:float", "rating:token")
    config = rewrite(small_config("FM"), small_interactions(), header)
    with pytest.raises(InputError, match="line 1: write rating:float"):
        load_dataset(config)


def test_a_file_without_users_is_refused(small_config):
    config = rewrite(small_config("FM"), small_interactions(), INTER.replace("user_id", "uid"))
    with pytest.raises(InputError, match="line 1: no column 'user_id'"):
        load_dataset(config)


def test_a_missing_file_is_named(small_config):
    config = small_config("FM")
    (Path(config["data_path"]) / "small.inter").unlink()
    with pytest.raises(InputError, match=r"there is no .*small\.inter"):
        load_dataset(config)


def test_a_filter_that_leaves_nothing_is_refused(small_config):
    with pytest.raises(InputError, match="check the filtering settings"):
        load_dataset(small_config("FM", user_inter_num_interval="[50,inf)"))


def test_a_file_without_rows_is_refused(small_config):
    with pytest.raises(InputError):
        load_dataset(rewrite(small_config("FM"), []))


def test_no_network_is_one_clear_line(small_data):
    from recbole_e2urec.config.config import Config

    config = Config("FM", "ml-1m", config_dict={"data_path": str(small_data), "download": True})
    with pytest.raises(InputError, match=r"ml-1m cannot be fetched: .*put its atomic files into"):
        load_dataset(config)
