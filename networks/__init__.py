"""2D networks: training a small one, and writing its logits with ids."""
