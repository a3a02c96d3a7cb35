"""Many drives: one drive's replay, many on Ray, and their results put together."""
