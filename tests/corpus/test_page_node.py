import numpy as np
import pytest

from pipelines.corpus import page_node


def test_the_page_is_the_same_again(built, make_context, tmp_path):
    page_node.make_corpus_page(make_context(node="corpus", config=None, inputs=built.inputs, out=tmp_path))
    for name in ("corpus.html", "corpus.json"):
        assert (tmp_path / name).read_bytes() == (built.out / name).read_bytes()


def test_the_figures_for_mlflow_are_finite(built):
    assert built.figures["corpus/duplicates"] == 1
    assert built.figures["corpus/rejected.clips"] == 1
    assert built.figures["corpus/median.found"] == pytest.approx(100 * 8 / 9)
    assert np.isfinite(list(built.figures.values())).all()
