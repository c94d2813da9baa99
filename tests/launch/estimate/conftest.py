"""These tests use the sizes of the schema."""

from tests.helpers.plain import schema_sizes

__all__ = ["schema_sizes"]
