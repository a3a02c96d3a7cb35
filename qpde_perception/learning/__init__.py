"""Training of stable quantized networks; the only rooms that know torch are this and compiling."""
