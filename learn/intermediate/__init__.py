"""Intermediate fusion: 3D codes join the features of a 2D network before its decision.

``table`` (features and codes, joined by id) → ``modules`` (five ways to join) → ``fit`` (the loop) → ``run`` (with
codes, masked, permuted; several seeds) → ``figures``. Everything but ``config`` and ``table`` imports torch.
"""
