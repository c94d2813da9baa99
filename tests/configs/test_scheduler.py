"""SLURM's forms of time limits and of lists of nodes."""

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from configs.scheduler import expand_nodes, limit_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90 * 60),
        ("90:30", 90 * 60 + 30),
        ("960:00:00", 960 * 3600),
        ("3-1", 3 * 86400 + 3600),
        ("0-01:00", 3600),
        ("3-1:0", 3 * 86400 + 3600),
        ("2-00:00:05", 2 * 86400 + 5),
    ],
)
def test_each_form_of_sbatch_is_a_time_limit(text: str, seconds: int) -> None:
    assert limit_seconds(text) == seconds
    assert load_config([f"cluster.time={text}", "cluster.signal_seconds=60"]).cluster.time == text


@pytest.mark.parametrize(
    "text",
    ["24h", "", "-5", "1:2:3:4", "1-2:3:4:5", "٣", "UNLIMITED", "9" * 12, "1-", "-1-2", "1_0"],
)
def test_what_is_no_time_limit_is_told_the_forms(text: str) -> None:
    assert limit_seconds(text) is None
    with pytest.raises(ConfigError, match="must be minutes, MM:SS, HH:MM:SS"):
        load_config([f"cluster.time={text or '0'}"])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node7", ["node7"]),
        ("nid[010696-010698]", ["nid010696", "nid010697", "nid010698"]),
        ("a[1,3-4]-ib,b", ["a1-ib", "a3-ib", "a4-ib", "b"]),
        ("r[1-2]n[08-09]", ["r1n08", "r1n09", "r2n08", "r2n09"]),
    ],
)
def test_a_list_of_nodes_names_each(text: str, names: list[str]) -> None:
    assert expand_nodes(text) == names
    assert load_config([f"cluster.exclude=[{text}]"]).cluster.exclude
    assert load_config([f"cluster.exclude=[{text}]"]) == load_config(
        [f"cluster.exclude='{text}'"]
    ) or ("," in text)


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a,,b", "n[1-", "n[]", "n[2-1]", "n[a-b]", "n[1-999999999]", "a;b", "$(x)", "a\n"],
)
def test_what_names_no_nodes_is_refused(text: str) -> None:
    assert expand_nodes(text) is None


def test_words_with_brackets_of_their_own_stand_in_lists() -> None:
    cluster = load_config(
        [
            "cluster.exclude=[nid[1-2,5],b]",
            "cluster.sbatch_options=[--constraint=[r1|r2],--exclusive]",
        ]
    ).cluster
    assert cluster.exclude == ["nid[1-2,5]", "b"]
    assert cluster.sbatch_options == ["--constraint=[r1|r2]", "--exclusive"]
    with pytest.raises(
        ConfigError, match=r"must name nodes as SLURM does, such as node042 or nid\["
    ):
        load_config(["cluster.exclude=[a/b]"])
