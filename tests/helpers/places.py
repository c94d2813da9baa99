"""Where this checkout lies, whatever folder a test file is moved to."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
