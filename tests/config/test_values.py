import pytest

from recbole_e2urec.config import schema


@pytest.mark.parametrize(
    ("key", "value", "default"),
    [
        ("threshold", None, {"rating": 4}),
        ("threshold", {"rating": 3.5}, {"rating": 4}),
        ("learning_rate", 1, 0.001),
        ("learning_rate", 0.1, 1),
        ("epochs", 0, 300),
        ("eval_step", 0, 1),
        ("topk", 10, [10]),
        ("use_gpu", False, True),
        ("a_key_without_default", "anything", None),
    ],
)
def test_check_values_lets_pass_what_does(key: str, value: object, default: object) -> None:
    schema.check_values({key: value}, {key: default})
