"""REFRAG: chunks of a passage as soft tokens, of which the telling ones are spelled out."""

from ragpack.compressors.refrag.method import Refrag

__all__ = ["Refrag"]
