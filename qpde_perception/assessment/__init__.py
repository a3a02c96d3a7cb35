"""Assessment: what is claimed of a model, measured on the integers that are deployed."""
