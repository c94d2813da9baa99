"""From words to a configuration: every mistake found at once, nothing guessed, nothing lost on the way to a file."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import load
from configs.checkpoint_yaml import from_checkpoint_yaml
from configs.errors import ConfigError
from configs.help import describe_key, help_text
from configs.keys import GROUPS
from configs.load import apply_overrides, diff, flatten, from_yaml, load_config, to_yaml
from configs.schema import BatchRampConfig, Config, Precision, Recompute, Schedule, SliceRule


def problems_of(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(list(words))
    return caught.value.problems


def test_no_words_give_the_schema_and_the_default_experiment() -> None:
    assert load_config([]) == Config()


def test_a_key_a_group_and_an_experiment_are_taken() -> None:
    config = load_config(
        ["experiment=glm_130b", "optim.lr=4e-5", "stability.embedding_shrink=[[0,0.5]]"]
    )
    assert config.experiment == "glm_130b"
    assert config.optim.lr == 4e-5
    assert config.stability.embedding_shrink == [[0.0, 0.5]]
    assert config.model.num_layers == 70


def test_a_group_on_the_line_wins_over_the_experiment_wherever_it_stands() -> None:
    for words in (
        ["experiment=glm_10b_1node", "model=tiny"],
        ["model=tiny", "experiment=glm_10b_1node"],
    ):
        config = load_config(words)
        assert config.model.num_layers == 4
        assert config.parallel.tp == 4


def test_the_last_of_two_words_for_the_same_holds() -> None:
    assert load_config(["model=glm_110m", "model=glm_335m"]).model.num_layers == 24
    assert load_config(["seed=1", "seed=2"]).seed == 2


def test_the_published_run_is_composed_exactly() -> None:
    config = load_config(["experiment=glm_130b"])
    model, optim, stability = config.model, config.optim, config.stability
    assert (model.num_layers, model.hidden_size, model.num_heads) == (70, 12288, 96)
    assert (model.ffn_size, model.vocab_size, model.seq_length) == (32768, 150528, 2048)
    assert (model.hidden_dropout, model.attention_dropout, model.rope_2d) == (0.1, 0.1, False)
    assert (config.parallel.tp, config.parallel.pp, config.parallel.zero_stage) == (4, 8, 1)
    assert config.parallel.recompute is Recompute.full
    assert (config.cluster.nodes, config.cluster.gpus_per_node) == (96, 8)
    assert config.precision is Precision.fp16
    assert (stability.initial_loss_scale, stability.loss_scale_window) == (2**16, 200)
    assert (stability.loss_scale_hysteresis, stability.embedding_shrink) == (2, [[0.0, 0.1]])
    assert (optim.micro_batch_size, optim.global_batch_size, optim.total_samples) == (
        1,
        4224,
        219726562,
    )
    assert optim.batch_ramp == BatchRampConfig(192, 24, 5493164)
    assert (optim.beta1, optim.beta2, optim.eps) == (0.9, 0.95, 1e-8)
    assert (optim.weight_decay, optim.clip, optim.schedule) == (0.1, 1.0, Schedule.cosine)
    assert (optim.lr, optim.min_lr) == (8e-5, 8e-6)
    assert (optim.warmup_samples, optim.decay_samples) == (1098632, 197753905)
    assert config.objective.slice_rule is SliceRule.glm_130b


@pytest.mark.parametrize(
    ("choice", "sizes"),
    [
        ("tiny", None),
        ("glm_110m", (12, 768, 12, 2048)),
        ("glm_335m", (24, 1024, 16, 2752)),
        ("glm_2b", (36, 2048, 32, 5504)),
        ("glm_10b", (48, 4096, 64, 10944)),
        ("glm_130b", (70, 12288, 96, 32768)),
        ("chatglm_6b", (28, 4096, 32, 16384)),
    ],
)
def test_every_preset_is_a_model_that_can_be_cut_by_four(
    choice: str, sizes: tuple[int, int, int, int] | None
) -> None:
    model = load_config([f"model={choice}", "parallel.tp=4"]).model
    if sizes is not None:
        assert (model.num_layers, model.hidden_size, model.num_heads, model.ffn_size) == sizes
    if choice != "chatglm_6b":
        assert model.ffn_size == -(-model.hidden_size * 8 // 3 // 64) * 64
        assert not model.rope_2d
    assert model.num_layers >= 4


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_every_group_is_a_valid_run(group: str) -> None:
    large_enough = ["model=glm_130b"] if group == "parallel" else []
    for file in (Path(load.__file__).parent / group).iterdir():
        load_config([*large_enough, f"{group}={file.stem}"])


def test_unknown_keys_name_the_nearest_known_ones_all_at_once() -> None:
    assert problems_of("opt.total_sample=1", "model.num_layer=3", "zzz=4") == [
        'There is no key "opt.total_sample". Did you mean optim.total_samples?',
        'There is no key "model.num_layer". Did you mean model.num_layers?',
        'There is no key "zzz". See python -m train --help',
    ]


def test_a_bare_name_finds_its_section() -> None:
    assert problems_of("lr=1") == ['There is no key "lr". Did you mean optim.lr?']
    assert problems_of("batch_size=1") == [
        'There is no key "batch_size". Did you mean optim.micro_batch_size or optim.global_batch_size?'
    ]


def test_an_unknown_choice_names_the_choices_and_the_nearest() -> None:
    (problem,) = problems_of("model=glm_130")
    assert problem.startswith(
        "model (glm_130) is not one of chatglm_6b, glm_10b, glm_110m, glm_130b, glm_2b, "
    )
    assert "Did you mean glm_130b or" in problem


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model.num_layers=many", "model.num_layers (many) must be a whole number."),
        ("model.num_layers=2.5", "model.num_layers (2.5) must be a whole number."),
        ("model.num_layers=null", "model.num_layers (null) must be a whole number."),
        ("optim.lr=fast", "optim.lr (fast) must be a number."),
        ("optim.lr=1,2", "optim.lr (1,2) must be a number."),
        ("optim.lr=[1]", "optim.lr ([1]) must be a number."),
        (
            "parallel.recompute=maybe",
            "parallel.recompute (maybe) must be one of none, selective, full.",
        ),
        ("model.rope_2d=maybe", "model.rope_2d (maybe) must be true or false."),
        ("precision=fp8", "precision (fp8) must be one of auto, fp32, bf16, fp16."),
        ("optim.schedule=linear", "optim.schedule (linear) must be one of cosine, wsd, constant."),
        ("run.name=[a]", "run.name ([a]) must be a word."),
        ("run.name=${x}", "run.name (${x}) must be a plain value, without interpolation."),
        ("data.paths=a,b", "data.paths (a,b) must be a list such as [a,b], or one alone."),
        ("data.paths=[[a]]", "data.paths ([[a]]) must be a list such as [a,b], or one alone."),
        ("data.paths=[a", "data.paths ([a) must be a list such as [a,b], or one alone."),
        ("data.weights=[a]", "data.weights ([a]) must be a list of numbers such as [1,2]."),
        (
            "data.skip_samples=[1,5]",
            "data.skip_samples ([1,5]) must be a list of pairs of whole numbers such as [[1,5]].",
        ),
        (
            "optim.batch_ramp=5",
            "optim.batch_ramp (5) must be given by its keys (start, increment, samples) or null.",
        ),
        ("+optim.lr=1", '"+optim.lr=1": every key exists already. Type optim.lr=1'),
        (
            "hydra.searchpath=[a]",
            '"hydra.searchpath=[a]" is Hydra\'s own. A folder with groups of your own: --config-dir DIR',
        ),
        (
            "hydra/launcher=slurm",
            '"hydra/launcher=slurm" is Hydra\'s own. Its other settings have no effect here. See python -m train --help',
        ),
        ("hydra.run.dir=x", "\"hydra.run.dir=x\" is Hydra's own. The run's folder: run.dir=PATH"),
        (
            "--multirun",
            '"--multirun" is Hydra\'s own. Runs with several values: python -m launch sweep --sweep optim.lr=1e-4,2e-4 '
            "--local",
        ),
        ("--fast", '"--fast" is not of the form key=value. See python -m train --help'),
    ],
)
def test_a_wrong_word_is_answered_with_what_to_type(word: str, expected: str) -> None:
    assert problems_of(word) == [expected]


def test_wrong_words_and_wrong_combinations_come_together() -> None:
    words = ["foo.bar=1", "optim.lr=fast", "parallel.pp=9"]
    assert problems_of(*words) == [
        'There is no key "foo.bar". See python -m train --help',
        "optim.lr (fast) must be a number.",
        "parallel.pp (9) must not exceed model.num_layers (4). Try parallel.pp=4.",
    ]
    with pytest.raises(ConfigError, match=r"^3 problems:\n  1\. .*\n  2\. .*\n  3\. "):
        load_config(words)


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("data.paths=my.jsonl", "data.paths", ["my.jsonl"]),
        ("data.paths=[a.txt,b.txt]", "data.paths", ["a.txt", "b.txt"]),
        ("data.paths=/tmp/a b(1).jsonl", "data.paths", ["/tmp/a b(1).jsonl"]),
        ("data.paths='a,b.txt'", "data.paths", ["a,b.txt"]),
        ("data.paths=x=y.txt", "data.paths", ["x=y.txt"]),
        ("data.valid_paths=v.txt", "data.valid_paths", ["v.txt"]),
        ("data.skip_samples=[[1,5],[9,12]]", "data.skip_samples", [[1, 5], [9, 12]]),
        ("optim.total_samples=1e6", "optim.total_samples", 1_000_000),
        ("optim.lr=1", "optim.lr", 1.0),
        ("optim.min_lr=null", "optim.min_lr", None),
        ("run.name=0012", "run.name", "0012"),
        ("run.name=1e3", "run.name", "1e3"),
        ("run.name=true", "run.name", "true"),
        ("run.name=a,b", "run.name", "a,b"),
        ("data.tokenizer=hf:/a/b.json", "data.tokenizer", "hf:/a/b.json"),
        ("data.accept_changed=true", "data.accept_changed", True),
        ("optim.batch_ramp.start=4", "optim.batch_ramp.start", 4),
        ("optim.batch_ramp={start:4,samples:99}", "optim.batch_ramp.samples", 99),
    ],
)
def test_a_value_is_read_as_its_key_means_it(word: str, key: str, value: object) -> None:
    assert flatten(load_config([word]))[key] == value


def test_the_keys_of_a_ramp_can_be_given_one_by_one_and_taken_away() -> None:
    words = [
        "optim.batch_ramp.start=4",
        "optim.batch_ramp.increment=6",
        "optim.batch_ramp.samples=99",
    ]
    with pytest.raises(
        ConfigError, match=r"A batch size of optim.batch_ramp \(10\) must be a multiple"
    ):
        load_config(words)
    words[1] = "optim.batch_ramp.increment=12"
    assert load_config(words).optim.batch_ramp == BatchRampConfig(4, 12, 99)
    assert load_config([*words, "optim.batch_ramp=null"]).optim.batch_ramp is None
    again = load_config([*words, "optim.batch_ramp=null", "optim.batch_ramp.start=8"])
    assert again.optim.batch_ramp == BatchRampConfig(start=8)


def test_composing_makes_no_file_and_changes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load_config(["experiment=glm_130b"])
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["experiment=glm_130b"], ["optim.batch_ramp.start=4"]])
def test_a_stored_configuration_is_read_back_equal(words: list[str]) -> None:
    config = load_config(words)
    assert from_yaml(to_yaml(config)) == config


@settings(max_examples=25)
@given(
    lr=st.floats(1e-8, 1.0),
    paths=st.lists(st.text(max_size=12), max_size=3),
    name=st.none() | st.text(st.characters(codec="utf-8"), max_size=12),
)
def test_any_text_and_number_survives_storing(
    lr: float, paths: list[str], name: str | None
) -> None:
    config = Config()
    config.optim.lr, config.data.paths, config.run.name = lr, paths, name
    assert from_yaml(to_yaml(config)) == config


def test_a_stored_configuration_may_lack_newer_keys() -> None:
    assert from_yaml("seed: 7\nmodel:\n  num_layers: 6\n").model.num_layers == 6
    assert from_yaml("") == Config()


@pytest.mark.parametrize(
    "text",
    [
        "future_key: 1",
        "model:\n  layers: 1",
        "seed: many",
        "seed: [",
        "- 1",
        "just words",
        "model: 5",
    ],
)
def test_a_stored_configuration_that_cannot_be_understood_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="The stored configuration cannot be read: "):
        from_yaml(text)


def test_a_difference_names_key_old_and_new_value() -> None:
    new = load_config(["optim.lr=5e-4", "optim.schedule=wsd", "optim.batch_ramp.start=4"])
    assert diff(Config(), new) == [
        "optim.batch_ramp.start: None -> 4",
        "optim.lr: 0.001 -> 0.0005",
        "optim.schedule: cosine -> wsd",
    ]
    assert diff(new, new) == []


def test_help_names_every_group_choice_and_key() -> None:
    text = help_text()
    assert "  experiment=default | glm_10b_1node | glm_130b | glm_130b_a100_80g |\n" in text
    assert "  optim.total_samples (4096)" in text
    assert "  optim.batch_ramp.start (null)" in text


def test_help_says_the_defaults_of_the_chosen_groups() -> None:
    assert "optim.lr: float, above 0, default 0.0003" in describe_key(
        "optim.lr", ["optim=standard"]
    )
    assert "  optim.batch_ramp.start (192)" in help_text(["experiment=glm_130b"])
    assert "default 7" in describe_key("seed", ["seed=7"])
    with pytest.raises(ConfigError, match="model .x. is not one of"):
        describe_key("seed", ["model=x"])


def test_one_key_one_section_and_one_group_can_be_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert describe_key("optim.clip") == (
        "optim.clip: float, 0 or more, default 1.0\n    Largest global gradient norm; 0: no clipping."
    )
    assert len(describe_key("optim.batch_ramp").splitlines()) == 6
    assert describe_key("model").startswith("model: group, one of chatglm_6b, ")
    with pytest.raises(ConfigError, match='There is no key "optim.clap". Did you mean optim.clip'):
        describe_key("optim.clap")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("dta", " Did you mean data?"),
        ("optm", " Did you mean optim?"),
        ("lr", " Did you mean optim.lr?"),
        ("learning_rate", " Did you mean optim.lr or "),
        ("zq", " All keys: python -m train --help"),
    ],
)
def test_help_of_no_key_says_which_section_group_or_key_may_be_meant(name: str, meant: str) -> None:
    with pytest.raises(ConfigError) as told:
        describe_key(name)
    assert str(told.value).startswith(f'There is no key "{name}".{meant}')


def test_options_and_variables_in_a_list_need_no_quotes() -> None:
    config = load_config(["cluster.environment=[NCCL_DEBUG=INFO, X=a b]"])
    assert config.cluster.environment == ["NCCL_DEBUG=INFO", "X=a b"]
    assert load_config(["cluster.srun_options=[--mpi=none,-v]"]).cluster.srun_options == [
        "--mpi=none",
        "-v",
    ]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("true", Recompute.full),
        ("false", Recompute.none),
        ("full", Recompute.full),
        ("selective", Recompute.selective),
        ("none", Recompute.none),
    ],
)
def test_recompute_is_read_as_it_was_typed_before_it_had_three_values(
    tmp_path: Path, word: str, expected: Recompute
) -> None:
    key = f"parallel.recompute={word}"
    assert load_config(["parallel=node", key]).parallel.recompute is expected
    # In a file of one's own, in the record of a run, and in that of a checkpoint.
    (tmp_path / "parallel").mkdir()
    (tmp_path / "parallel" / "mine.yaml").write_text(f"recompute: {word}\n")
    own = load_config(["--config-dir", str(tmp_path), "parallel=mine"])
    assert own.parallel.recompute is expected
    assert from_yaml(f"parallel:\n  recompute: {word}\n").parallel.recompute is expected
    stored = from_checkpoint_yaml(f"parallel:\n  recompute: {word}\n")
    assert stored.parallel.recompute is expected
    assert from_yaml(to_yaml(stored)) == stored
    assert apply_overrides(Config(), [key]).parallel.recompute is expected
