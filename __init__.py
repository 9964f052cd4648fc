"""Simyard runs simulations in the background and keeps the truth about them."""

from __future__ import annotations

__version__ = "0.1.0"
