"""Files that appear whole, leases of processes, and the cache of finished trainings."""
