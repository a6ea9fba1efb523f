"""Nouns that every other package shares. Standard library only; no I/O."""
