"""2D networks: the user's own, run over a dataset (``load``, ``logits``); small ones, trained (``train``)."""
