"""Training of the small checkpoints that ragpack ships."""
