"""Intermediate fusion: 3D codes are combined with the features of a 2D network before its decision.

``table`` (features and codes, aligned by id) → ``plan`` (train, validation and reported rows) → ``modules`` and ``fit``
(training) → ``run`` (all conditions and seeds) → ``results`` (figures). Only training and reading a checkpoint import
torch.
"""
