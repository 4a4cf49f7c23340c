"""A small corpus and a node's context (tests/eval/conftest.py), and what the node makes of it."""

import json

import pytest

from pipelines.corpus import page_node
from tests.eval.conftest import clips, corpus_inputs, make_context, make_family, recordings

__all__ = ["clips", "corpus_inputs", "make_context", "make_family", "recordings"]


@pytest.fixture(scope="session")
def built(make_context, corpus_inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    context = make_context(node="corpus", config=None, inputs=corpus_inputs, out=out)
    page_node.make_corpus_page(context)
    return context


@pytest.fixture
def facts(built):
    return json.loads((built.out / "corpus.json").read_text())
