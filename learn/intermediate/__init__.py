"""Intermediate fusion: 3D codes join the features of a 2D network before its decision.

``table`` (features and codes, joined by id) → ``rows`` (who sees which) → ``route`` (what is trained: one of the
``modules``) → ``fit`` (the loop) → ``run`` (with codes, masked, permuted; several seeds) → ``figures`` → ``record`` (as
:mod:`ig3d.learn.report` takes it). Only what trains or reads a checkpoint imports torch.
"""
