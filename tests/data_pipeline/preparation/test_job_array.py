"""Shares of a job array."""

import pytest

from configs.errors import DataError
from data_pipeline.preparation.job_array import Share, parse_share


def test_share_is_read_as_typed():
    assert parse_share("3/8") == Share(3, 8)
    assert str(Share(3, 8)) == "3/8"


@pytest.mark.parametrize("text", ["", "3", "0/8", "9/8", "-1/8", "a/b", "1/0", "\u00b2/8", "1/8/2"])
def test_anything_else_is_refused(text: str):
    with pytest.raises(DataError, match="Type --part 1/8 to --part 8/8, or --part slurm"):
        parse_share(text)


@pytest.mark.parametrize(
    ("values", "share"), [(("1", "1", "4"), Share(1, 4)), (("7", "4", "4"), Share(4, 4))]
)
def test_share_of_a_slurm_task(values: tuple[str, ...], share: Share, monkeypatch):
    set_task(monkeypatch, values)
    assert parse_share("slurm") == share


def test_slurm_without_an_array_is_told(monkeypatch: pytest.MonkeyPatch):
    for name in ("ID", "MIN", "COUNT"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
    with pytest.raises(DataError, match="sbatch --array=1-8"):
        parse_share("slurm")
    set_task(monkeypatch, ("8", "0", "4"))  # --array=0,4,8,12
    with pytest.raises(DataError, match="without gaps"):
        parse_share("slurm")


def set_task(monkeypatch: pytest.MonkeyPatch, values: tuple[str, ...]) -> None:
    for name, value in zip(("ID", "MIN", "COUNT"), values, strict=True):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
