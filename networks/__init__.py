"""2D networks: run the user's network on a dataset (``load``, ``logits``), train a network (``train``, ``joint``)."""
