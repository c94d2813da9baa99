"""show, stats and verify as a user types them: of a prefix, of a configuration and of a run."""

import json
from pathlib import Path

import pytest

from configs.load import load_config, to_stored_yaml
from data_pipeline import __main__ as commands
from data_pipeline.corpus import ensure_prepared
from data_pipeline.look.subject import open_target
from data_pipeline.sampler import drawn_index
from data_pipeline.tokenizer import keep_tokenizer
from tests.helpers.texts import sentences

SMALL = ("model.seq_length=128", "model.vocab_size=262", "data.tokenizer=bytes")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    lines = (json.dumps({"text": text}) + "\n" for text in sentences(300))
    (folder / "corpus.jsonl").write_text("".join(lines))
    words = ["prepare", folder / "corpus.jsonl", "--output", folder / "a", "--tokenizer", "bytes"]
    assert commands.cli([str(word) for word in words]) == 0
    return folder / "a"


@pytest.fixture
def run_folder(prefix: Path, tmp_path: Path) -> Path:
    """What a run of 24 samples in steps of 8 leaves, 8 samples skipped."""
    words = [f"data.paths=[{prefix}]", "data.skip_samples=[[10,18]]", "optim.total_samples=24"]
    (tmp_path / "config.yaml").write_text(to_stored_yaml(load_config([*SMALL, *words])))
    lines = [{"step": step, "samples_seen": 8 * step} for step in (1, 2)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "samp'
    (tmp_path / "metrics.jsonl").write_text(text)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = commands.cli([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_run_and_prefix_and_configuration_show_the_same_sample(
    prefix: Path, run_folder: Path, capsys
):
    shown = []
    for words in (
        ("show", prefix, "--index", 5, *SMALL),
        ("show", prefix, *SMALL, "--index", 5),
        ("show", run_folder, "--index", 5),
        ("show", f"data.paths=[{prefix}]", *SMALL, "--index", 5),
    ):
        code, out, err = run(capsys, *words)
        assert (code, err) == (0, "")
        shown.append([line for line in out.splitlines() if not line.startswith("used ")])
    assert shown[0] == shown[1] == shown[2] == shown[3]
    assert any(line.startswith("documents  document ") for line in shown[0])


def test_run_tells_what_became_of_a_sample(run_folder: Path, capsys):
    def used(index: int, *words: str) -> str:
        code, out, _ = run(capsys, "show", run_folder, "--index", index, *words)
        assert code == 0
        (line,) = (line for line in out.splitlines() if line.startswith("used "))
        return line.removeprefix("used").strip()

    assert used(7) == "as trained sample 7, in step 1"
    assert used(8) == "as trained sample 8, in step 2"
    assert used(10) == used(17) == "never: it lies in a range of data.skip_samples"
    assert drawn_index(12, [[10, 18]]) == 20
    assert used(20) == "as trained sample 12, in step 2"
    assert (
        used(24) == "as trained sample 16, not reached yet: the run is at 16"
    )  # the torn line does not count
    assert used(32) == "never: the run ends after 24 samples"
    assert (
        used(32, "optim.total_samples=48")
        == "as trained sample 24, not reached yet: the run is at 16"
    )
    assert used(3, "--valid") == "row 3 of the held-out set, the same at every evaluation"


def describe_data(folder: Path, drawn: int) -> None:
    """Leave a checkpoint's word of the data that the run is configured with."""
    dataset = open_target(str(folder), [], is_validation=False).dataset
    checkpoint = folder / "checkpoints" / "step_00000002"
    checkpoint.mkdir(parents=True)
    body = {"data_state": {"dataset": dataset.describe()}, "progress": {"samples_drawn": drawn}}
    (checkpoint / "manifest.json").write_text(json.dumps(body))


def test_run_is_not_shown_in_words_that_it_never_saw(prefix: Path, tmp_path: Path, capsys):
    corpus, own, folder = tmp_path / "my.jsonl", tmp_path / "own", tmp_path / "run"
    folder.mkdir()

    def prepare(seed: int) -> None:
        lines = (json.dumps({"text": text}) + "\n" for text in sentences(300, seed=seed))
        corpus.write_text("".join(lines))
        assert run(capsys, "prepare", corpus, "--output", own, "--tokenizer", "bytes")[0] == 0

    prepare(1)
    (folder / "config.yaml").write_text(
        to_stored_yaml(load_config([*SMALL, f"data.paths=[{own}]"]))
    )
    describe_data(folder, 16)
    assert "as trained sample 3" in run(capsys, "show", folder, "--index", 3)[1]
    code, _, err = run(capsys, "show", folder, "objective.gmask_share=0.5")
    assert code == 2 and "With objective.gmask_share=0.5 the data are not those" in err
    prepare(2)
    for words in (("show", folder), ("stats", folder), ("show", folder, "--valid")):
        code, out, err = run(capsys, *words)
        assert (code, out) == (2, "")
        assert "The data are not those that" in err
        assert "source own had" in err
        assert err.count("\n") == 1
    code, out, _ = run(capsys, "show", folder, "--index", 3, "data.accept_changed=true")
    assert code == 0
    assert "not by this run, whose data were different" in out
    assert "as trained" not in out


def test_looking_prepares_nothing(tmp_path: Path, capsys):
    corpus, cache, folder = tmp_path / "my.jsonl", tmp_path / "cache", tmp_path / "run"
    folder.mkdir()
    words = [f"data.paths=[{corpus}]", f"data.cache_dir={cache}", *SMALL[:2]]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences(300)))
    config = load_config(words)
    ensured = ensure_prepared(config.data, 262, lambda text: None)
    keep_tokenizer(ensured.tokenizer, folder / "tokenizer")
    (folder / "config.yaml").write_text(to_stored_yaml(config))
    assert run(capsys, "show", folder)[0] == 0
    made = sorted(cache.iterdir())
    with corpus.open("a") as file:
        file.write(json.dumps({"text": "One more."}) + "\n")
    for target in (["show", folder], ["stats", folder], ["show", *words]):
        code, out, err = run(capsys, *target)
        assert (code, out) == (2, "")
        assert "does not exist: the corpora were never prepared with these settings" in err
    assert sorted(cache.iterdir()) == made


def test_mixture_of_a_stage_is_told(prefix: Path, capsys):
    words = (f"data.paths=[{prefix},{prefix}]", *SMALL, "data.stages=[[0,1,3],[40,1,0]]")
    for index, said in ((39, "a 25.00%, a-2 75.00% at this index"), (40, "a 100.00%, a-2 0.00%")):
        code, out, _ = run(capsys, "show", *words, "--index", index)
        assert code == 0
        assert f"mixture    {said}" in out


REMARK = "Rows of 512 tokens; for another length type model.seq_length=N, or name a run."


def test_next_sample_of_a_kind(prefix: Path, capsys):
    for kind, name in (("mask", "[MASK]"), ("gmask", "[gMASK]")):
        _, out, _ = run(capsys, "show", prefix, "--objective", kind, "--index", 30)
        remark, _, headline = out.splitlines()[:3]
        assert remark == REMARK
        number, shown = headline.split(",")[0].removeprefix("sample ").split(": ")
        assert shown == name
        assert 30 <= int(number) < 45


def test_records_are_shown_as_instructions_and_refused_as_texts(tmp_path: Path, capsys):
    corpus, own = tmp_path / "my.jsonl", tmp_path / "own"
    lines = (json.dumps({"q": f"What is {n}?", "a": f"It is {n}."}) + "\n" for n in range(100))
    corpus.write_text("".join(lines))
    words = ["prepare", corpus, "--prompt-key", "q", "--target-key", "a", "--output", own]
    assert run(capsys, *words, "--tokenizer", "bytes")[0] == 0
    for options in ([], ["--objective", "mip"], ["--valid"]):
        code, out, _ = run(capsys, "show", own, *options)
        assert code == 0
        assert "What is " in out
        headline = out.splitlines()[2]
        assert headline.startswith("sample 0: ") and "MIP" in headline.upper()
    code, out, err = run(capsys, "show", f"data.paths=[{own}]", *SMALL)
    assert (code, out) == (2, "")
    assert f"data.instructions=[{own}]" in err


def test_page_is_written(prefix: Path, tmp_path: Path, capsys):
    page = tmp_path / "page.html"
    assert run(capsys, "show", prefix, "--html", page) == (0, f"{page}\n", "")
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert run(capsys, "show", prefix, "--index", 1, "--html", page)[0] == 0
    page.write_text("<!doctype html><title>mine</title>")
    code, _, said = run(capsys, "show", prefix, "--html", page)
    assert code == 2 and "was not written by show" in said
    assert page.read_text() == "<!doctype html><title>mine</title>"


def test_statistics_of_a_range(prefix: Path, run_folder: Path, capsys):
    code, out, err = run(capsys, "stats", run_folder, "--from", 100, "--to", 300)
    assert (code, err) == (0, "")
    assert out.startswith(f"{run_folder}: samples 100 to 300\n\nobjective")
    _, out, _ = run(capsys, "stats", prefix, "--to", 10**12, "--samples", 20)
    assert f"samples 0 to {10**12:,}, 20 of them looked at" in out


def test_verify_tells_every_problem_of_every_prefix(prefix: Path, tmp_path: Path, capsys):
    code, out, _ = run(capsys, "verify", prefix)
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == [f"{prefix}", f"{prefix}.valid"]
    for ending in ("bin", "idx", "json"):
        for part in ("", ".valid"):
            content = Path(f"{prefix}{part}.{ending}").read_bytes()
            (tmp_path / f"b{part}.{ending}").write_bytes(content)
    flipped = bytearray((tmp_path / "b.valid.bin").read_bytes())
    flipped[6] ^= 1
    (tmp_path / "b.valid.bin").write_bytes(flipped)
    code, out, err = run(capsys, "verify", tmp_path / "gone", prefix, tmp_path / "b")
    assert code == 2
    first, second = err.splitlines()
    assert first.startswith(f"There is no run or token shard named {tmp_path}/gone.")
    assert second.startswith(f"{tmp_path}/b.valid.bin is damaged in bytes 0 to {len(flipped):,}.")
    assert f"{prefix}: whole" in out
    assert f"{tmp_path}/b: whole" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("show {d}", "has no config.yaml: it is not a run"),
        ("show {p} --index -1", "--index (-1) must be at least 0"),
        ("show {p} --objective mip", "data_pipeline stats {p}"),
        ("show {p} objective.gmask_share=1 --objective mask", "data_pipeline stats {p}"),
        ("show {p} --html {d}/gone/page.html", "cannot be written"),
        ("show {p} model.seq_lenght=64", "model.seq_length"),
        ("show {p} model=gpt", "model (gpt) is not one of"),
        ("stats {p} --from 5 --to 5", "--from (5) must be at least 0 and below --to (5)"),
        ("stats {p} --samples 0", "--samples (0) must be at least 1"),
        ("verify {d}", "has no config.yaml: it is not a run"),
        ("stats {d}/gone", "There is no run or token shard named"),
    ],
)
def test_mistakes_end_with_one_message(words: str, said: str, prefix: Path, tmp_path: Path, capsys):
    code, out, err = run(capsys, *(word.format(d=tmp_path, p=prefix) for word in words.split()))
    assert (code, out) == (2, "")
    assert said.format(p=prefix) in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words", ["verify {p} --what", "verify {p} --vocab-size 5 --x", "show {p} --x=3"]
)
def test_unknown_options_are_refused(words: str, prefix: Path, capsys):
    with pytest.raises(SystemExit) as stop:
        commands.cli(words.format(p=prefix).split())
    assert stop.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err
