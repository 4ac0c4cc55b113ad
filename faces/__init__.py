"""Face geometry: face model, FLAME, drawing and synthetic faces."""
