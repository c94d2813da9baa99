"""The house rules as assertions: who imports whom, one door per foreign library, and what a source file must not hold.

docs/architecture.md explains them; DOORS and MAY_IMPORT below are its two tables.
"""

import ast
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.places import ROOT
from tests.helpers.sources import sources

# Our packages, and what each may import of them besides itself.
MAY_IMPORT = {
    "configs": set(),
    "data_pipeline": {"configs"},
    "glm": {"configs"},
    "train": {"configs", "data_pipeline", "glm"},
    "launch": {"configs"},
}
# Those of a package that read text: they use the tokenizer and lay out rows, nothing else of data_pipeline.
APPLICATIONS = (
    "glm/generate.py",
    "glm/completion.py",
    "glm/filling.py",
    "glm/prompt.py",
    "glm/score.py",
    "glm/convert/",
)
APPLICATIONS_MAY_IMPORT = {
    "data_pipeline.tokenizer",
    "data_pipeline.special_tokens",
    "data_pipeline.blanks",
}

# Foreign libraries that any file of a package may import.
AT_HOME = {
    "configs": set(),
    "data_pipeline": {"numpy"},
    "glm": {"torch", "numpy"},
    "train": {"torch", "numpy"},
    "launch": set(),
}
# Every other foreign library has one door, or as few as it can.
DOORS = {
    "hydra": ["configs/load.py"],
    "omegaconf": ["configs/load.py", "configs/yaml_text.py"],
    "yaml": ["configs/yaml_text.py"],
    "msgspec": ["configs/records.py"],
    "megatron": ["glm/tensor_parallel.py", "train/engine/megatron_schedule.py"],
    "deepspeed": [
        "train/engine/groups.py",
        "train/engine/interleaved.py",
        "train/engine/marked_instructions.py",
        "train/engine/one_stage.py",
        "train/engine/own_passes.py",
        "train/engine/pipeline.py",
        "train/engine/reduction.py",
        "train/engine/stages.py",
        "train/engine/update.py",
    ],
    "wandb": ["train/tracker_wandb.py", "train/wandb_missing.py"],
    "tensorboardX": ["train/tracker_tensorboard.py"],
    "wandb_workspaces": ["train/dashboard/workspace.py"],
    "rich": ["train/terminal/screen.py", "data_pipeline/preparation/progress.py"],
    "tokenizers": ["data_pipeline/tokenizer_hf.py", "data_pipeline/preparation/train_tokenizer.py"],
    "sentencepiece": [
        "data_pipeline/tokenizer_sentencepiece.py",
        "data_pipeline/preparation/train_tokenizer.py",
    ],
    "datasets": ["data_pipeline/preparation/tables.py"],
    "pyarrow": ["data_pipeline/preparation/tables.py"],
    "zstandard": [
        "data_pipeline/preparation/archives.py",
        "data_pipeline/preparation/zstd_reader.py",
    ],
    "apex": ["train/engine/optimizers.py"],
    "safetensors": [],
}
# Names that open a door too.
ENVIRONMENT_DOORS = [
    "configs/terminal.py",
    "train/world.py",
    "train/cuda_environment.py",
    "train/cpu_threads.py",
    "train/host_memory.py",
    "train/tracker_wandb.py",
    "train/wandb_account.py",
    "train/wandb_missing.py",
    "data_pipeline/cache.py",
    "data_pipeline/preparation/job_array.py",
    "data_pipeline/preparation/workers.py",
]
CUDA_DOORS = ["train/device.py"]

# Imported when their feature is used, never at the top of a file.
LATE = {"datasets", "pyarrow", "wandb", "tensorboardX", "wandb_workspaces", "apex"}

# Generation draws words; it is the one place where numbers come from a generator, which starts at the user's seed.
MAY_DRAW = "glm/filling.py"


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imported modules, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            if node.module in MAY_IMPORT:  # from data_pipeline import tokenizer
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def foreign(tree: ast.AST) -> set[str]:
    """Top-level names of imported libraries that are neither ours nor Python's."""
    names = {name.partition(".")[0] for name in imports(tree)}
    return names - sys.stdlib_module_names - MAY_IMPORT.keys()


def test_there_are_sources_to_look_at() -> None:
    assert {path.partition("/")[0] for path in sources()} == MAY_IMPORT.keys()
    assert len(sources()) > 50


def test_imports_go_one_way() -> None:
    wrong = []
    for path, tree in sources().items():
        package = path.partition("/")[0]
        for name in imports(tree):
            top = name.partition(".")[0]
            is_ours = top in MAY_IMPORT or top in ("tests", "benchmarks")
            allowed = top == package or top in MAY_IMPORT[package]
            if path.startswith(APPLICATIONS):
                allowed = allowed or ".".join(name.split(".")[:2]) in APPLICATIONS_MAY_IMPORT
            if is_ours and not allowed:
                wrong.append(f"{path} imports {name}")
    assert not wrong


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    def module(path: str) -> str:
        return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    edges = {module(path): set(imports(tree)) for path, tree in sources().items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle of imports: {' -> '.join([*trail, name])}"
        if name in done or name not in edges:
            return
        for other in edges[name]:
            visit(other, (*trail, name))
        done.add(name)

    for name in edges:
        visit(name, ())


def test_every_foreign_library_has_its_door() -> None:
    wrong = []
    for path, tree in sources().items():
        for library in foreign(tree) - AT_HOME[path.partition("/")[0]]:
            is_format = library == "safetensors" and path.startswith("glm/checkpoint/")
            if path not in DOORS.get(library, []) and not is_format:
                wrong.append(f"{path} imports {library}")
    assert not wrong


def test_every_door_is_used() -> None:
    """A table that allows more than the code needs hides the next mistake."""
    used = {(library, path) for path, tree in sources().items() for library in foreign(tree)}
    exists = {
        (library, path) for library, paths in DOORS.items() for path in paths if path in sources()
    }
    assert exists - used == set()


def test_launch_and_the_schema_need_the_standard_library_only() -> None:
    for path, tree in sources().items():
        is_door = path in ("configs/load.py", "configs/records.py", "configs/yaml_text.py")
        if path.startswith(("launch/", "configs/")) and not is_door:
            assert foreign(tree) == set(), path


def test_heavy_libraries_are_imported_when_they_are_used() -> None:
    for path, tree in sources().items():
        at_the_top = ast.Module([node for node in tree.body if _is_import(node)], [])
        late = LATE | ({"torch", "megatron"} if path.startswith("data_pipeline/") else set())
        assert foreign(at_the_top).isdisjoint(late), path


def test_the_environment_is_read_at_its_doors() -> None:
    wrong = []
    for path, tree in sources().items():
        names = {f"{n.value.id}.{n.attr}" for n in _attributes(tree)}
        if path not in ENVIRONMENT_DOORS and names & {"os.environ", "os.getenv", "os.putenv"}:
            wrong.append(path)
    assert not wrong


def test_cuda_is_spoken_of_in_one_file() -> None:
    for path, tree in sources().items():
        names = {f"{n.value.id}.{n.attr}" for n in _attributes(tree)}
        assert path in CUDA_DOORS or "torch.cuda" not in names, path


def test_nobody_imports_what_another_file_keeps_to_itself() -> None:
    wrong = []
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.startswith(tuple(MAY_IMPORT))
            ):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                wrong += [f"{path}: {node.module}.{name}" for name in private]
    assert not wrong


def test_no_randomness_has_a_state() -> None:
    """Weights, dropout and data are functions of their index: no generator exists whose state could be lost."""
    forbidden = re.compile(
        r"torch\.(manual_seed|rand|randn|randint|randperm|bernoulli|Generator)\b|\brandom\.seed\b"
    )
    for path, tree in sources().items():
        names = {f"{n.value.id}.{n.attr}" for n in _attributes(tree)}
        assert path == MAY_DRAW or not [name for name in names if forbidden.fullmatch(name)], path
        assert "random" not in foreign(tree) | set(imports(tree)), path


def test_no_file_is_a_cupboard() -> None:
    names = {Path(path).stem for path in sources()}
    assert names.isdisjoint({"utils", "util", "helpers", "helper", "common", "misc"})
    classes = [
        node.name
        for tree in sources().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    assert not [
        name for name in classes if name.endswith(("Manager", "Helper", "Utils", "Wrapper"))
    ]


def test_files_stay_short_enough_to_be_read_at_once() -> None:
    lengths = {path: len((ROOT / path).read_text("utf-8").splitlines()) for path in sources()}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_sources_are_ascii() -> None:
    for path in sources():
        assert (ROOT / path).read_text("utf-8").isascii(), path


def test_work_that_is_left_is_not_kept_in_comments() -> None:
    wrong = []
    for path in sources():
        with (ROOT / path).open("rb") as file:
            comments = [
                token.string
                for token in tokenize.tokenize(file.readline)
                if token.type == tokenize.COMMENT
            ]
        pattern = r"\b(TODO|FIXME|XXX|HACK)\b|type: ignore"
        wrong += [f"{path}: {comment}" for comment in comments if re.search(pattern, comment)]
    assert not wrong


def test_every_module_says_what_it_is() -> None:
    for path, tree in sources().items():
        assert ast.get_docstring(tree), path


def test_tests_lie_where_their_files_do() -> None:
    rooms = {"helpers", "integration", "benchmarks", "slurm"}
    for test in (ROOT / "tests").rglob("test_*.py"):
        parts = test.relative_to(ROOT / "tests").parts
        if len(parts) > 1 and parts[0] not in rooms:
            assert parts[0] in MAY_IMPORT, f"{test}: no such package"


def test_no_test_file_imports_another() -> None:
    """What two of them need is a helper; an import would run the other's module too."""
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for name in imports(ast.parse(path.read_text("utf-8")))
        if name.startswith("tests.") and ".test_" in name
    ]
    assert not wrong


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_can_be_imported_from_anywhere(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {package}"
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _attributes(tree: ast.AST) -> Iterator[ast.Attribute]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node
