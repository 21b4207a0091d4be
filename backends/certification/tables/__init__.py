"""The shipped tables, one for each version of a framework."""
