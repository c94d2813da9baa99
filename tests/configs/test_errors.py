"""How problems are put together."""

from configs.errors import ConfigError


def test_one_problem_stands_alone_and_several_are_numbered() -> None:
    assert str(ConfigError(["only."])) == "only."
    assert str(ConfigError(["one.", "two."])) == "2 problems:\n  1. one.\n  2. two."
