"""The home folder in place of ~, for every key that is a path."""

from dataclasses import asdict

import pytest

from configs.errors import ConfigError
from configs.home import PATH_KEYS, expanded
from configs.keys import known_keys
from configs.load import apply_overrides, flatten, load_config
from configs.schema import Config


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


def test_a_leading_tilde_is_the_home_folder() -> None:
    assert expanded("~/runs/x") == "/home/me/runs/x"
    assert expanded("hf:~/t.json") == "hf:/home/me/t.json"
    for text in ("./~/x", "a~b", "bytes", "hf:t~.json", "auto", "https://host/~me/x", ""):
        assert expanded(text) == text


@pytest.mark.parametrize("key", PATH_KEYS)
def test_every_key_that_is_a_path_knows_the_home_folder(key: str) -> None:
    value = flatten(load_config([f"{key}=~/some/x"]))[key]
    assert value in ("/home/me/some/x", ["/home/me/some/x"])


def test_lists_and_stored_runs_know_it_too() -> None:
    config = load_config(["data.paths=[~/a.txt,b.txt]"])
    assert config.data.paths == ["/home/me/a.txt", "b.txt"]
    assert apply_overrides(Config(), ["data.valid_paths=~/v"]).data.valid_paths == ["/home/me/v"]


def test_no_key_that_is_a_path_is_forgotten() -> None:
    words = ("dir", "_to", "_from", "file", "paths", "copy", "tokenizer", "folder", "path")
    looks_like_one = {key for key in known_keys() if key.endswith(words)}
    assert looks_like_one - set(PATH_KEYS) == set()
    assert asdict(Config()).keys() >= {key.partition(".")[0] for key in PATH_KEYS}


def test_who_has_no_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ConfigError) as caught:
        load_config(["run.dir=~/x", "data.paths=~nobody/x"])
    assert caught.value.problems == [
        "run.dir (~/x): HOME is not set. Type the whole path, or ./~/x for a folder of that name.",
        "data.paths (~nobody/x): there is no user nobody. Type the whole path, or ./~nobody/x for a folder of that name.",
    ]
