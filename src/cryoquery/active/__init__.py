"""Active learning: the loop, the oracles that answer its queries, and when it may stop."""
