"""Texts of a configuration: plain, on one line, without secrets, and never repeated where they are one."""

import pytest

from configs.checks.text import problems
from configs.errors import ConfigError
from configs.load import apply_overrides, load_config
from configs.schema import Config


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\t", "\x1b", "\x00", "\x85", "\u2028", "\udc80"]
)
@pytest.mark.parametrize("key", ["log.wandb_project", "data.text_key", "data.paths", "run.name"])
def test_what_does_not_stand_on_one_line_is_refused_for_every_key(key: str, character: str) -> None:
    config = Config()
    section, _, name = key.partition(".")
    text = f"a{character}touch b"
    setattr(getattr(config, section), name, [text] if name == "paths" else text)
    (found,) = problems(config)
    assert found.startswith(f"{key} (a\\")
    assert "must be plain text on one line" in found
    assert found.isprintable()


def test_other_scripts_and_blanks_are_plain_text() -> None:
    config = Config()
    config.run.name, config.data.paths = "模型 \N{GREEK SMALL LETTER MU}\u200d", ["a b'\"$(x)"]
    assert problems(config) == []


@pytest.mark.parametrize(
    "text",
    [
        "WANDB_API_KEY=0123abc",
        "HF_TOKEN='0123abc'",
        "AWS_SECRET_ACCESS_KEY=0123abc",
        "AWS_SESSION_TOKEN=0123abc",
        "db_password=0123abc",
        "export MY_SECRET=0123abc; true",
        "--export=ALL,WANDB_API_KEY=0123abc",
        "https://me:0123abc@host/corpus.jsonl",
        "hf_0123abc" + "x" * 30,
        "AKIA0123ABCDEFGHIJKL",
    ],
)
def test_a_secret_is_refused_wherever_it_stands_and_not_repeated(text: str) -> None:
    config = Config()
    for texts in (config.cluster.environment, config.cluster.setup, config.cluster.srun_options):
        texts.append(text)
    found = problems(config)
    assert [problem.split()[0] for problem in found] == [
        "cluster.setup", "cluster.environment", "cluster.srun_options",
    ]  # fmt: skip
    assert not any("0123" in problem for problem in found)
    assert all("wandb login" in problem for problem in found)


@pytest.mark.parametrize(
    "text",
    [
        "TOKENIZERS_PARALLELISM=false",
        "export WANDB_API_KEY=$(cat key)",
        'export HF_TOKEN="$HF_TOKEN"',
        "HF_TOKEN_PATH=/home/me/token",
        "AWS_REGION=eu-west-1",
        "NCCL_DEBUG=INFO",
        "MAX_TOKENS_PER_ROW=5",
        "PASSTHROUGH=1",
        "WANDB_API_KEY=",
        "s3://bucket/0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_what_only_looks_like_a_secret_is_taken(text: str) -> None:
    config = Config()
    config.cluster.environment = [text]
    assert problems(config) == []


def test_a_run_is_refused_but_what_was_trained_with_one_can_be_used() -> None:
    with pytest.raises(ConfigError, match="^cluster.environment holds the value of HF_TOKEN, "):
        load_config(["cluster.environment=HF_TOKEN=0123abc"])
    old = Config()
    old.cluster.environment, old.data.text_key = ["HF_TOKEN=0123abc"], "a\nb"
    assert apply_overrides(old, ["seed=2"]).seed == 2
    with pytest.raises(ConfigError, match="^log.wandb_project .* must be plain text"):
        apply_overrides(old, ["log.wandb_project=a\nb"])
