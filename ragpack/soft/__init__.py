"""Soft tokens: chunks of a passage as vectors, which of them to spell out, and prompts of both.

The tool floor under REFRAG and the loaders of other soft-token methods. A chunk is k tokens of the
*decoder*; its vector is stored before projection and projected for each request, so that one stored
passage serves every projector.
"""
