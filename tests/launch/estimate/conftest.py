"""These tests speak of the schema's sizes."""

from tests.helpers.plain import schema_sizes

__all__ = ["schema_sizes"]
