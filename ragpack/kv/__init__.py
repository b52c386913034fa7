"""Precomputed attention keys and values: encode a passage once, compose a request from many.

``encode`` makes a passage's KV, ``compose`` puts stored passages into one cache, ``attention`` lets
any Hugging Face decoder read it, ``recompute`` moves the result from parallel encoding towards the
plain prompt, ``gate`` proves a model before its KV is trusted.
"""
