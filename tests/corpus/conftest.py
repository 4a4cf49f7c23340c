"""A small corpus and a node's context (tests/eval/conftest.py)."""

from tests.eval.conftest import clips, corpus_inputs, make_context, make_family, recordings

__all__ = ["clips", "corpus_inputs", "make_context", "make_family", "recordings"]
