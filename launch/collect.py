"""Clusters without internet access: one command collects what they need in a folder, another installs from it.

    python -m launch collect FOLDER [overrides] [--with-torch]       on a machine with internet access
    bash FOLDER/install.sh                                           on the cluster, after FOLDER was copied there

The folder gets wheels of this program and of all its requirements, in the versions installed here, and the local files
that the configuration names (tokenizer and corpora). PyTorch is left out unless asked for: clusters have their own
build of it, and its CUDA libraries take gigabytes. The wheels fit the Python version and platform of the machine on
which they are collected.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import configs
from configs.errors import ConfigError, UserError
from configs.load import load_config
from configs.schema import Config
from launch.options import parse

DISTRIBUTION = "glm-pretraining"
_NAME = re.compile(r"[\w.-]+")
_INSTALL = """\
#!/usr/bin/env bash
# Installs the wheels beside this script, without internet access. Further options go to pip; PYTHON chooses the interpreter.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"${PYTHON:-python3}" -m pip install --no-index --find-links "$here/wheels" -r "$here/requirements.txt" "$@"
"""


def collect(words: list[str]) -> str:
    """Fill the folder.

    Args:
        words: the folder, overrides, and `--with-torch`.

    Returns:
        What is in it, and what to type on the cluster.

    Raises:
        UserError: no folder named, a file is missing, or pip could not get a wheel.
    """
    request = parse(words, ("--with-torch",), ())
    places = [word for word in request.overrides if "=" not in word]
    if len(places) != 1:
        raise ConfigError(
            ["Name one folder to collect into. Try python -m launch collect to-the-cluster."]
        )
    folder = Path(places[0])
    config = load_config([word for word in request.overrides if "=" in word])
    files = local_files(config)
    leave_out = set[str]() if "--with-torch" in request.switches else {"torch"}
    requirements = installed_requirements(DISTRIBUTION, leave_out)
    wheels = gather_wheels(folder, requirements)
    for path in files:
        target = folder / "files" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return (
        f"{folder}: {wheels} wheels and {len(files)} files, {size / 1e6:,.0f} MB. Copy it to the cluster; there: "
        f"bash {folder.name}/install.sh"
    )


def installed_requirements(distribution: str, leave_out: set[str]) -> list[str]:
    """List `name==version` of every requirement of a distribution, direct or not, as installed here.

    Args:
        distribution: name of the distribution, which is not in the list.
        leave_out: normalised names of packages that are left out, with their own requirements.
    """
    versions: dict[str, str] = {}
    waiting = [distribution]
    while waiting:
        for name in _needs(waiting.pop()):
            if name not in versions and name not in leave_out:
                versions[name] = importlib.metadata.version(name)
                waiting.append(name)
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def gather_wheels(folder: Path, requirements: list[str]) -> int:
    """Put wheels of this program and of its requirements into a folder, with the script that installs them.

    Returns:
        The number of wheels.

    Raises:
        UserError: this program's source is not here, or pip failed.
    """
    source = Path(configs.__path__[0]).parent
    if not (source / "setup.py").is_file():
        raise UserError(
            f"{source} has no setup.py: this program was installed as a wheel. Run collect from a checkout of it."
        )
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(wheels)]
    done = subprocess.run([*pip, str(source), *requirements], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"pip could not get every wheel: {done.stderr.strip().splitlines()[-1]}")
    (folder / "requirements.txt").write_text("\n".join([DISTRIBUTION, *requirements]) + "\n")
    (folder / "install.sh").write_text(_INSTALL)
    return len(list(wheels.glob("*.whl")))


def local_files(config: Config) -> list[Path]:
    """The files on this machine that a configuration names: those of its tokenizer and of its corpora.

    Raises:
        ConfigError: the tokenizer's file is not here, or two files have the same name.
    """
    found = list[Path]()
    kind, _, name = (config.data.tokenizer or "").partition(":")
    if kind and name:
        # The roles of its special tokens may follow: hf:FILE#eos=TEXT.
        found.append(Path(name) if Path(name).exists() else Path(name.rpartition("#")[0] or name))
    for named in (*config.data.paths, *(config.data.valid_paths or [])):
        path = Path(named)
        if path.is_file():
            found.append(path)
        else:  # a prefix of shards, which are several files; any other name is that of a data set
            found += sorted(file for file in path.parent.glob(f"{path.name}.*") if file.is_file())
    problems = [
        f"{path} is a folder. Name the tokenizer's file in it: data.tokenizer={kind}:FILE."
        if path.is_dir()
        else f"{path} is not here. Name the files as they lie on this machine."
        for path in found
        if not path.is_file()
    ]
    names = [path.name for path in found]
    problems += [
        f"Two files are called {name}. Rename one: they would lie in one folder."
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    if problems:
        raise ConfigError(problems)
    return found


def _needs(distribution: str) -> Iterator[str]:
    """Normalised names of a distribution's direct requirements that are installed here."""
    for requirement in importlib.metadata.requires(distribution) or []:
        match = _NAME.match(requirement)
        if match is None or "extra ==" in requirement:
            continue
        name = re.sub(r"[-_.]+", "-", match[0]).lower()
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # its environment marker excludes this Python or platform
        yield name
