"""The face as geometry: alignment to a mean face, and drawing."""
