"""A project: a person labels what a query names, and everything that was done is an event in its log."""
