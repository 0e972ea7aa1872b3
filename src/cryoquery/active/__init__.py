"""Active learning: the loop, who answers its queries, and when it may stop."""
