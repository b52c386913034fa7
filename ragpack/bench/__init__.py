"""Measures methods on questions of your own; ``ragpack bench`` is the way in."""
