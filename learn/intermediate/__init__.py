"""Intermediate fusion: 3D codes join the features of a 2D network before its decision.

``table`` (features and codes, joined by id) → ``rows`` (who sees which) → ``route`` (what is trained: one of the
``modules``) → ``fit`` (the loop) → ``run`` (with codes, masked, permuted; several seeds) → ``figures``. Everything but
``config``, ``table``, ``rows`` and ``figures`` imports torch.
"""
