import os

import pytest

from pipelines.errors import UserError
from pipelines.preprocess.sources.common.files import digest_each_file, safe_name
from pipelines.preprocess.sources.folder import (
    FolderConfig,
    describe_skipped_files,
    digest_external_files,
    list_recordings,
)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "videos"
    for name in ("ann/one.mp4", "ann/two.MP4", "bob b/one.mp4", "solo.mkv", "ann/notes.txt", ".trash/x.mp4"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def listed(root, **more):
    return {row["id"]: row for row in list_recordings(FolderConfig(path=str(root), **more)).rows}


def test_ids_come_from_the_relative_path_and_are_safe(corpus):
    ids = set(listed(corpus))
    assert {"ann-one", "ann-two", "solo"} < ids
    assert len(ids) == 4
    assert all(c.isalnum() or c in "_-" for i in ids for c in i)


def test_identity_is_the_parent_folder_and_the_file_itself_at_the_top(corpus):
    rows = listed(corpus)
    assert rows["ann-one"]["identity"] == rows["ann-two"]["identity"] == "ann"
    assert rows["solo"]["identity"] == "solo"


def test_a_new_video_renames_no_other(corpus):
    before = set(listed(corpus))
    (corpus / "bob b" / "two.mp4").write_bytes(b"new")
    assert before < set(listed(corpus))


def test_equal_names_get_a_hash_of_their_path(corpus):
    (corpus / "solo.mp4").write_bytes(b"other")
    ids = [i for i in listed(corpus) if i.startswith("solo")]
    assert len(ids) == 2
    assert all(len(i) == len("solo-12345678") for i in ids)


def test_long_names_stay_apart_and_fit_into_a_shard(corpus):
    folder = corpus / "Lex Fridman Podcast Clips"
    folder.mkdir()
    names = [f"Interview with somebody of a long name ({n}) [dQw4w9WgXcQ]" for n in ("part 1", "part 2")]
    for name in names:
        for extension in (".mp4", ".mkv"):  # one id too many: both get a hash of their path
            (folder / f"{name}{extension}").write_bytes(f"{name}{extension}".encode())
    rows = [row for id, row in listed(corpus).items() if id.startswith("Lex-Fridman-Podcast-Cli-")]
    assert len(rows) == 4
    assert all(len(row["id"]) <= 32 and len(row["identity"]) <= 32 for row in rows)


def test_changed_names_stay_apart():
    assert safe_name("a b") != safe_name("a.b") != safe_name("a-b") == "a-b"


def test_identities_come_from_the_csv(corpus, tmp_path):
    table = tmp_path / "who.csv"
    table.write_text("file,identity\nann/one.mp4,p1\nann/two.MP4,p2\nbob b/one.mp4,p1\nsolo.mkv,p3\n")
    rows = listed(corpus, identities=str(table))
    assert rows["ann-two"]["identity"] == "p2"
    assert f"identities:{table.name}" in digest_external_files(
        FolderConfig(path=str(corpus), identities=str(table))
    )


def test_a_csv_that_pandas_wrote_names_the_same_people(corpus, tmp_path):
    table = tmp_path / "who.csv"
    names = ("ann/one.mp4", "ann/two.MP4", "bob b/one.mp4", "solo.mkv")
    table.write_text("file,identity\n" + "".join(f"{name},{n}\n" for n, name in enumerate(names)))
    plain = listed(corpus, identities=str(table))
    lines = "".join(f'{n},{n}.0,"{name}",x\r\n' for n, name in enumerate(names))
    table.write_text(f"\ufeff,identity, file,note\r\n{lines}")
    assert listed(corpus, identities=str(table)) == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;identity\nann/one.mp4;p1\n", "who.csv: semicolons part the columns, expected commas"),
        ("file,who\nann/one.mp4,p1\n", "no column identity; found file, who"),
        ("file,identity\nann/six.mp4,p1\n", "line 2: no video 'ann/six.mp4'"),
        ("file,identity\nann/one.mp4,p1\nann/one.mp4,p2\n", "line 3: 'ann/one.mp4' is listed twice"),
        (f'file,identity\n"ann/one.mp4,p1\n{"x" * 140_000}', "is a quote left open before it?"),
        ("file,identity\nann/one.mp4,\n", "line 2: 'ann/one.mp4' has no identity"),
        ("file,identity\nann/one.mp4,p1\n", "3 videos have no line"),
    ],
)
def test_a_wrong_csv_is_named_with_its_line(corpus, tmp_path, text, message):
    table = tmp_path / "who.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=r"who\.csv") as caught:
        listed(corpus, identities=str(table))
    assert message in str(caught.value)


def test_links_to_files_and_folders_anywhere_are_followed_under_their_own_names(corpus, tmp_path):
    far = tmp_path / "disk"
    (far / "deep").mkdir(parents=True)
    (far / "deep" / "take.mp4").write_bytes(b"take")
    (tmp_path / "other.mp4").write_bytes(b"x")
    os.symlink(far, corpus / "eve")
    os.symlink(tmp_path / "other.mp4", corpus / "ann" / "link.mp4")
    rows = listed(corpus)
    assert rows["eve-deep-take"]["uri"] == str(corpus / "eve" / "deep" / "take.mp4")
    assert (rows["ann-link"]["identity"], len(rows)) == ("ann", 6)


def test_a_linked_folder_that_is_called_as_a_picture_is_a_reject_all_the_same(corpus):
    os.symlink(corpus / "ann", corpus / "again.png")
    (reject,) = list_recordings(FolderConfig(path=str(corpus))).rejects
    assert (reject["code"], reject["file"]) == ("duplicate_content", str(corpus / "again.png"))


def test_links_in_a_circle_and_to_nothing_are_one_reject_each(corpus, tmp_path):
    os.symlink(corpus, corpus / "ann" / "up")
    os.symlink(corpus / "ann", corpus / "aaa")
    os.symlink("self.mp4", corpus / "self.mp4")
    os.symlink(tmp_path / "gone", corpus / "zoe")
    os.symlink(tmp_path / "gone.txt", corpus / "notes.txt")
    listing = list_recordings(FolderConfig(path=str(corpus)))
    assert {(os.path.basename(r["file"]), r["code"]) for r in listing.rejects} == {
        ("up", "duplicate_content"), ("aaa", "duplicate_content"),
        ("self.mp4", "dangling_link"), ("zoe", "dangling_link"),
    }  # fmt: skip
    assert {row["id"] for row in listing.rows if "ann" in row["id"]} == {"ann-one", "ann-two"}
    assert len(listing.rows) == 4


def test_a_link_that_leads_somewhere_again_makes_the_listing_another(corpus, tmp_path):
    before = digest_external_files(FolderConfig(path=str(corpus)))
    os.symlink(tmp_path / "later.mp4", corpus / "later.mp4")
    broken = digest_external_files(FolderConfig(path=str(corpus)))
    (tmp_path / "later.mp4").write_bytes(b"here")
    mended = digest_external_files(FolderConfig(path=str(corpus)))
    assert len({str(found) for found in (before, broken, mended)}) == 3
    assert "later.mp4" in mended


@pytest.mark.parametrize(
    "suffix", [".m4v", ".ts", ".MTS", ".m2ts", ".flv", ".wmv", ".mpg", ".vob", ".3gp", ".ogv"]
)
def test_every_kind_of_video_counts(corpus, suffix):
    (corpus / f"clip{suffix}").write_bytes(b"video")
    assert "clip" in listed(corpus)


def test_what_may_be_a_video_and_is_left_out_is_counted(corpus):
    assert describe_skipped_files(FolderConfig(path=str(corpus))) == ""
    for name in ("a.braw", "b.braw", "ann/c", "d.jpg", "e.srt"):
        (corpus / name).write_bytes(b"x")
    told = describe_skipped_files(FolderConfig(path=str(corpus)))
    assert told.startswith("left out are 2 .braw, 1 without an ending; data.NAME.folder.ext")
    assert describe_skipped_files(FolderConfig(path=str(corpus), extensions=(".mp4",))).startswith(
        "left out are 2 .braw, 1 without an ending, 1 .mkv; "
    )


def test_what_is_said_of_names_that_are_not_utf8_can_be_printed(corpus):
    os.mkdir(os.fsencode(corpus) + b"/p\xff")
    os.symlink(b"p\xff", os.fsencode(corpus) + b"/link")
    os.close(os.open(os.fsencode(corpus) + b"/a.b\xff", os.O_CREAT))
    config = FolderConfig(path=str(corpus))
    assert describe_skipped_files(config).startswith("left out are 1 .b?; ")
    told = [
        *digest_external_files(config).values(),
        *(reject["sentence"] for reject in list_recordings(config).rejects),
    ]
    assert "\n".join(told).encode()


def test_a_folder_of_nothing_but_what_is_left_out_is_one_sentence(tmp_path):
    (tmp_path / "a.braw").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds no video: left out are 1 \.braw; data"):
        list_recordings(FolderConfig(path=str(tmp_path)))


def test_no_folder_is_one_sentence():
    with pytest.raises(UserError, match=r"data\.NAME\.folder\.path '' is not a folder"):
        list_recordings(FolderConfig())


def test_a_name_that_is_not_utf8_is_rejected_and_the_others_stay(corpus):
    before = digest_external_files(FolderConfig(path=str(corpus)))
    with open(os.path.join(os.fsencode(corpus), b"caf\xe9.mp4"), "wb") as stream:
        stream.write(b"x")
    listing = list_recordings(FolderConfig(path=str(corpus)))
    assert [(r["code"], r["file"][-8:]) for r in listing.rejects] == [("malformed_name", "caf?.mp4")]
    assert len(listing.rows) == 4
    assert digest_external_files(FolderConfig(path=str(corpus))) == before | {"names that are not UTF-8": "1"}


def test_a_table_with_bytes_that_are_not_utf8_still_names_people(corpus, tmp_path):
    lines = [
        b"file,identity",
        *(f"{name},p".encode() for name in digest_external_files(FolderConfig(path=str(corpus)))),
    ]
    (tmp_path / "who.csv").write_bytes(b"\n".join(lines).replace(b",p", b",Jos\xe9"))
    assert (
        len({row["identity"] for row in listed(corpus, identities=str(tmp_path / "who.csv")).values()}) == 1
    )


def test_external_names_every_video_by_content(corpus):
    before = digest_external_files(FolderConfig(path=str(corpus)))
    assert set(before) == {"ann/one.mp4", "ann/two.MP4", "bob b/one.mp4", "solo.mkv"}
    (corpus / "solo.mkv").write_bytes(b"changed content")
    after = digest_external_files(FolderConfig(path=str(corpus)))
    assert {name for name in before if before[name] != after[name]} == {"solo.mkv"}


def test_known_files_are_not_read_again(corpus):
    path = corpus / "solo.mkv"
    first = digest_each_file([path])[path]
    stat = path.stat()
    with path.open("r+b") as stream:  # same size, inode and time, other content: only reading would tell
        stream.write(b"SOLO")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest_each_file([path])[path] == first


def test_a_broken_cache_is_rebuilt(corpus, tmp_path):
    path = corpus / "solo.mkv"
    first = digest_each_file([path])
    (tmp_path / "cache" / "digests.json").write_text("{ not json")
    assert digest_each_file([path]) == first
