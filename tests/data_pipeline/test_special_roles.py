"""Tokens of a foreign vocabulary that have a role: named, found beside a published file, kept with shards and runs."""

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError, RecordError
from configs.load import load_config
from data_pipeline.corpus import ensure_prepared, named_roles, tokenizer_of
from data_pipeline.special_roles import ROLES
from data_pipeline.tokenizer import (
    describe_tokenizer,
    keep_tokenizer,
    kept_tokenizer,
    load_tokenizer,
)
from data_pipeline.tokenizer_spec import join_spec, parse_role, split_spec, with_roles
from tests.helpers.texts import sentencepiece_model, sentences, write_jsonl

WORDS = {"[UNK]": 0, "the": 1, "[STOP]": 2, "<|x|>": 3, "<fill/>": 4, "</s>": 5}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as models are published."""
    folder = tmp_path / "published"
    folder.mkdir()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def test_roles_are_named_by_keys_and_the_rest_is_added(published: Path):
    words = [f"data.tokenizer=hf:{published}/tokenizer.json", "data.special_tokens.eos=[STOP]"]
    data = load_config([*words, "data.special_tokens.pad=<|x|>"]).data
    assert named_roles(data) == {"eos": "[STOP]", "pad": "<|x|>"}
    tokenizer = load_tokenizer(with_roles(str(data.tokenizer), named_roles(data)))
    assert (tokenizer.special.eos, tokenizer.special.pad, tokenizer.special.mask) == (2, 3, 6)
    assert tokenizer.encode("the [STOP] the")[0] == 1
    assert 2 not in tokenizer.encode("the [STOP] the")
    line = describe_tokenizer(tokenizer)
    assert "<eos> 2 ([STOP]), <pad> 3 (<|x|>)" in line and "[MASK] 6 (added)" in line


def test_roles_change_the_fingerprint_only_where_they_change_an_id(published: Path):
    spec = f"hf:{published}/tokenizer.json"
    plain = load_tokenizer(spec).fingerprint
    assert load_tokenizer(f"{spec}#eos=</s>").fingerprint == plain
    assert load_tokenizer(f"{spec}#eos=[STOP]").fingerprint != plain


def test_files_beside_a_published_tokenizer_name_its_roles(published: Path):
    write(published / "tokenizer_config.json", {"pad_token": "[UNK]", "eos_token": "</s>"})
    write(published / "special_tokens_map.json", {"eos_token": {"content": "[STOP]"}})
    tokenizer = load_tokenizer(f"hf:{published}")
    assert tokenizer.special.eos == 2
    assert tokenizer.spec == f"hf:{published}/tokenizer.json#eos=[STOP]"
    assert load_tokenizer(f"hf:{published}#eos=</s>").special.eos == 5
    write(published / "special_tokens_map.json", {"eos_token": "</s>", "pad_token": "</s>"})
    assert load_tokenizer(f"hf:{published}").special.pad == 10  # added: not the end of documents
    write(published / "special_tokens_map.json", [1])
    with pytest.raises(DataError, match="special_tokens_map.json is damaged"):
        load_tokenizer(f"hf:{published}")


def test_a_folder_with_one_sentencepiece_model_is_taken(tmp_path: Path):
    with pytest.raises(DataError, match=r"has no \*.model"):
        load_tokenizer(f"sp:{tmp_path}")
    with pytest.raises(DataError, match=r"has no tokenizer.json"):
        load_tokenizer(f"hf:{tmp_path}")
    (tmp_path / "spiece.model").write_bytes(sentencepiece_model())
    assert load_tokenizer(f"sp:{tmp_path}").spec == f"sp:{tmp_path}/spiece.model"
    (tmp_path / "other.model").write_bytes(b"")
    with pytest.raises(DataError, match="has 2 files"):
        load_tokenizer(f"sp:{tmp_path}")


@pytest.mark.parametrize(
    ("tail", "problem"),
    [
        ("eos=[HALT]", r'has no token "\[HALT\]" to be eos'),
        ("eos=[STOP]&pad=[STOP]", "One token cannot have two roles"),
        ("eos=[UNK]", "is what this tokenizer writes for unknown words"),
    ],
)
def test_a_role_that_cannot_be_given_is_a_message(published: Path, tail: str, problem: str):
    with pytest.raises(DataError, match=problem):
        load_tokenizer(f"hf:{published}/tokenizer.json#{tail}")


def test_a_tokenizer_without_a_file_has_no_roles_to_give():
    with pytest.raises(DataError, match="Leave data.special_tokens out"):
        with_roles("bytes", {"eos": "x"})
    for word in ("eos", "end=x", "eos="):
        with pytest.raises(DataError, match="must be ROLE=TEXT"):
            parse_role(word)


@given(
    named=st.dictionaries(st.sampled_from(ROLES), st.text(min_size=1), max_size=3),
    name=st.sampled_from(["a/b.json", "a#1/b.model", "c#eos", "d=e#f"]),
)
@settings(max_examples=30, deadline=None)
def test_a_spec_with_roles_comes_back(named: dict[str, str], name: str):
    named = {role: text for role, text in named.items() if text.isprintable()}
    assert split_spec(join_spec("hf", name, named)) == ("hf", name, named)


def test_roles_stay_with_shards_and_with_a_run(published: Path, tmp_path: Path):
    spec = f"hf:{published}#eos=[STOP]&pad=<fill/>"
    corpus = write_jsonl(tmp_path / "c.jsonl", ["the [STOP] the", *sentences(20)])
    words = [f"data.paths={corpus}", f"data.cache_dir={tmp_path}/cache"]
    data = load_config(words).data
    data.tokenizer = spec
    made = ensure_prepared(data, 300, lambda _: None)
    wanted = load_tokenizer(spec)
    shard = load_tokenizer(tokenizer_of(made.train[0].prefix))
    assert shard.special == wanted.special and shard.fingerprint == wanted.fingerprint
    keep_tokenizer(made.tokenizer, tmp_path / "run" / "tokenizer")
    published.rename(tmp_path / "gone")
    kept = kept_tokenizer(tmp_path / "run")
    assert kept is not None and load_tokenizer(kept).special == wanted.special


def test_a_run_without_a_tokenizer_keeps_none(tmp_path: Path):
    assert kept_tokenizer(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"17", b"[]", b"\xff\x00", b"hf:", b"x:y", b"a" * 99999])
def test_a_kept_spec_that_is_none_is_one_message(content: bytes, tmp_path: Path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "spec.txt").write_bytes(content)
    with pytest.raises(RecordError, match=r"spec\.txt"):
        kept_tokenizer(tmp_path)


def test_a_kept_spec_of_another_kind_of_file_is_one_message(tmp_path: Path):
    (tmp_path / "tokenizer" / "spec.txt").mkdir(parents=True)
    with pytest.raises(RecordError, match=r"spec\.txt is a folder"):
        kept_tokenizer(tmp_path)
