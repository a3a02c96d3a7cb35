"""Real-time perception with forward-stable, quantized networks."""
