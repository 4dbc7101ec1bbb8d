"""Formats of users' files, one per entry of the registry."""

from sigmax.data.formats.registry import READERS, Reader, read

__all__ = ["READERS", "Reader", "read"]
