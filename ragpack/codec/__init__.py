"""Artifacts as bytes for a store: one checked frame for each (``docs/frame-format.md``)."""

from ragpack.codec.frame import MAX_FRAME_BYTES, decode_frame, encode_frame, verify_frame

__all__ = ["MAX_FRAME_BYTES", "decode_frame", "encode_frame", "verify_frame"]
