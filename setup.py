"""Packaging. `pip install -e .` keeps a torch that is already installed; setup.py names every range once."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGES = ("train", "configs", "glm", "data_pipeline", "launch")  # never `tests`

TENSORBOARD = ["tensorboardX>=2.6.2,<2.7"]
DASHBOARD = ["wandb-workspaces>=0.4.13,<0.5"]
TEST = [
    *TENSORBOARD,
    *DASHBOARD,
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "scipy>=1.11",
    "ruff>=0.14,<0.17",
    "basedpyright>=1.30",
    "codespell>=2.3",
]

setup(
    name="glm-pretraining",
    version="0.1.0",
    description="Distributed pre-training of GLM (autoregressive blank infilling), from a laptop to 768 GPUs",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=[*PACKAGES, *(f"{name}.*" for name in PACKAGES)]),
    package_data={
        "configs": ["*.yaml", "*/*.yaml"],
        "launch": ["templates/*"],
        "train.report": ["assets/*", "assets/licenses/*"],
    },
    install_requires=[
        # Upper bounds stand where a newer version was not tried together with the others.
        "torch>=2.8,<2.14",
        "deepspeed>=0.19.8,<0.20",
        "megatron-core>=0.16.1,<0.17",
        "hydra-core>=1.3.2,<1.4",
        "datasets>=3",
        "tokenizers>=0.20",
        "sentencepiece>=0.2",
        "wandb>=0.31,<0.32",
        "safetensors>=0.4",
        "rich>=13",
        "zstandard>=0.22",
        "numpy>=1.26",
        "msgspec>=0.19",
    ],
    extras_require={
        "tensorboard": TENSORBOARD,
        "dashboard": DASHBOARD,
        "test": TEST,
        "dev": [*TEST, "pre-commit>=3.7"],
    },
    entry_points={
        "console_scripts": [
            "glm-train = train.main:cli",
            "glm-data = data_pipeline.__main__:cli",
            "glm-launch = launch.__main__:cli",
            "glm-generate = glm.generate:cli",
            "glm-evaluate = train.evaluate:cli",
            "glm-report = train.report.__main__:cli",
            "glm-history = train.history.__main__:cli",
            "glm-profile = train.profile.__main__:cli",
            "glm-dashboard = train.dashboard.__main__:cli",
        ]
    },
)
