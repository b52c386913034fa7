"""A proxy for chat completions that packs documents into the prompt on the way."""
