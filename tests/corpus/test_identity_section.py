import numpy as np
import pytest

from pipelines.corpus.identity_check import CheckSummary, ClipRow, DuplicateRow, PersonRow
from pipelines.corpus.identity_section import (
    IdentityFindings,
    findings_mlflow_metrics,
    render_identity_section,
)

SUMMARY = CheckSummary(
    net="dlib_resnet", threshold=-3.2, unlike=-2.0, identities=30, enough=True, compared_pairs=4000
)


def person(name, split, nearest, distance, same_as=""):
    return PersonRow(
        identity=name, split=split, clips=2, recordings=[name], sample_clip=f"{name}#r#000000#000060",
        nearest=nearest, nearest_corpus="", nearest_clip=f"{nearest}#r#000000#000060", distance=distance,
        same_as=same_as,
    )  # fmt: skip


@pytest.fixture
def findings():
    return IdentityFindings(
        summary=SUMMARY,
        identities=[person("a<b", "test", "train9", -4.2, "train9"), person("t2", "test", "train8", -1.1),
                    person("train9", "train", "a<b", -4.2)],
        clips=[ClipRow(clip="t2#q#000000#000060", own_distance=-0.5, nearest="train9", nearest_distance=-4.1,
                       issue="wrong name")],
        duplicates=[DuplicateRow(first="t2#q#000000#000060", second="train9#r#000000#000060",
                                 difference=0.03, shift=10)],
        moved=None,
    )  # fmt: skip


def render(findings):
    shown = []

    def picture(key):
        shown.append(key)
        return np.zeros((8, 8, 3), np.uint8)

    return render_identity_section(findings, picture), shown


def test_leaks_come_first_with_both_faces(findings):
    text, shown = render(findings)
    assert "have the face of a training identity: 1 (a&lt;b is train9)" in text
    assert "set <code>data.NAME.leaks</code> to refuse or move" in text
    assert text.index("is train9") < text.index("-1.10")
    assert shown[:2] == ["a<b#r#000000#000060", "train9#r#000000#000060"]


def test_it_says_how_many_false_names_are_expected_and_whom_the_net_confuses(findings):
    text, _ = render(findings)
    assert "4,000 pairs here some 2.7 are as near by chance" in text
    assert "Measured at -3.3" in text
    assert "East Asian" in text


def test_clips_and_duplicates_are_listed(findings):
    text, _ = render(findings)
    assert "<code>t2#q#000000#000060</code>" in text
    assert "+0.40 s" in text
    assert "3.0 %" in text


def test_what_was_moved_is_said(findings):
    moved = IdentityFindings(
        **{n: getattr(findings, n) for n in findings.__struct_fields__} | {"moved": ["a<b"]}
    )
    assert "Moved to the training split: a&lt;b." in render(moved)[0]


def test_too_few_people_and_no_findings_are_said_in_words(findings):
    few = CheckSummary(
        net="dlib_resnet", threshold=-3.2, unlike=-2.0, identities=3, enough=False, compared_pairs=0
    )
    none = IdentityFindings(summary=few, identities=[], clips=[], duplicates=[], moved=None)
    assert "Faces of 3 identities were found" in render(none)[0]
    clean = IdentityFindings(
        summary=SUMMARY, identities=findings.identities[1:2], clips=[], duplicates=[], moved=None
    )
    text, _ = render(clean)
    assert "No test identity is taken for a training identity" in text
    assert "Every clip is like the other clips of its identity" in text


def test_figures_count_what_was_found(findings):
    assert findings_mlflow_metrics(findings) == {
        "corpus/leaks": 1, "corpus/clips_unlike_own_identity": 1, "corpus/near_duplicates": 1,
    }  # fmt: skip
