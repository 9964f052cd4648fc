"""The REST surface: one module per noun, each a few thin handlers."""
