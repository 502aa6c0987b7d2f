"""Jobs inside other programs."""
