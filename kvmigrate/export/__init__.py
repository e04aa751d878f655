"""The way out: a store's items as lines, from the store or rebuilt from the tables."""
