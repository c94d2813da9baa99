"""A folder that is no data set ends with our message alone: the libraries beneath print reasons of their own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.places import ROOT


def test_a_folder_that_cannot_be_read_is_one_message_that_names_what_to_type(
    tmp_path: Path,
) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "part.jsonl").write_text('{"text": "an end is missing"\n')
    words = ["prepare", "corpus", "--output", "shards/x", "--tokenizer", "bytes", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "data_pipeline", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("The folder corpus cannot be read as a data set (JSON parse ")
    assert done.stderr.endswith("one by one (INPUT), such as corpus/part.jsonl.\n")
