"""From trained weights to a bundle: integers, graphs, parity."""
