"""Training with torch: one loop for heads, fusion modules and 2D networks, its schedule, losses and files."""
