"""Facts about files are kept between commands; a cache that cannot be read is as none."""

import json
import threading

import pytest

from pipelines.engine.file_cache import CACHE_VERSION, FileFactCache, folders_stamp


def test_a_fact_is_kept_until_its_file_changes(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("1")
    cache = FileFactCache(tmp_path / "files.json")
    assert cache.get(file, lambda: "first") == "first"
    cache.save()
    again = FileFactCache(tmp_path / "files.json")
    assert again.get(file, lambda: "second") == "first"
    file.write_text("12")
    assert again.get(file, lambda: "third") == "third"


def test_threads_may_add_facts_while_it_is_saved(tmp_path):
    files = [tmp_path / f"{i}.py" for i in range(200)]
    for file in files:
        file.touch()
    cache = FileFactCache(tmp_path / "files.json")
    errors: list[BaseException] = []

    def add(some) -> None:
        for file in some:
            cache.get(file, lambda: ["x" * 2000] * 20)

    def save(adding) -> None:
        try:
            while any(thread.is_alive() for thread in adding):
                cache._dirty = True
                cache.save()
        except BaseException as error:  # noqa: BLE001 (raised below)
            errors.append(error)

    adding = [threading.Thread(target=add, args=(files[i::4],)) for i in range(4)]
    saving = threading.Thread(target=save, args=(adding,))
    for thread in (*adding, saving):
        thread.start()
    for thread in (*adding, saving):
        thread.join()
    assert errors == []
    cache.save()
    assert len(json.loads((tmp_path / "files.json").read_text())["facts"]) == 200


@pytest.mark.parametrize("text", ["", "[]", "{", "1", '{"a.py": 3}', "\xff", '{"form": 1, "facts": {}}',
                                  f'{{"form": {CACHE_VERSION}, "facts": []}}',
                                  f'{{"form": {CACHE_VERSION}, "facts": {{"FILE": 3}}}}'])  # fmt: skip
def test_a_cache_of_another_form_is_ignored(tmp_path, text):
    file = tmp_path / "a.py"
    file.touch()
    (tmp_path / "files.json").write_text(text.replace("FILE", str(file)), encoding="latin-1")
    assert FileFactCache(tmp_path / "files.json").get(file, lambda: "made") == "made"


def test_facts_that_something_else_made_are_ignored(tmp_path):
    file = tmp_path / "a.py"
    file.touch()
    cache = FileFactCache(tmp_path / "files.json", "parser 1")
    cache.get(file, lambda: "first")
    cache.save()
    assert FileFactCache(tmp_path / "files.json", "parser 2").get(file, lambda: "second") == "second"
    assert FileFactCache(tmp_path / "files.json", "parser 1").get(file, lambda: "third") == "first"


@pytest.mark.parametrize("kind", ["below a file", "a folder", "a dangling link", "deep"])
def test_a_cache_that_can_be_neither_read_nor_written_is_no_error(tmp_path, kind):
    file, path = tmp_path / "a.py", tmp_path / "cache" / "files.json"
    file.touch()
    if kind == "below a file":
        path.parent.touch()
    else:
        path.parent.mkdir()
    if kind == "a folder":
        (path / "x").mkdir(parents=True)
    elif kind == "a dangling link":
        path.symlink_to(tmp_path / "gone" / "files.json")
    elif kind == "deep":
        path.write_text("[" * 100_000)
    cache = FileFactCache(path)
    assert cache.get(file, lambda: "made") == "made"
    cache.save()
    assert not list(tmp_path.glob("cache/.*"))


def test_a_fact_about_a_folder_is_kept_as_long_as_its_stamp(tmp_path):
    cache = FileFactCache(tmp_path / "facts.json")
    assert cache.get(tmp_path, lambda: 1, "lines", "a") == 1
    assert cache.get(tmp_path, lambda: 2, "words", "a") == 2
    assert cache.get(tmp_path, lambda: 3, "lines", "a") == 1
    assert cache.get(tmp_path, lambda: 4, "lines", "b") == 4


def test_facts_about_files_that_are_gone_are_not_kept(tmp_path):
    old, new = tmp_path / "old.py", tmp_path / "new.py"
    old.touch()
    new.touch()
    cache = FileFactCache(tmp_path / "facts.json")
    for file in (old, new):
        cache.get(file, lambda: "long")
        cache.get(file, lambda: "short", "summary")
    old.unlink()
    cache.save()
    kept = json.loads((tmp_path / "facts.json").read_text())["facts"]
    assert {name.partition("\n")[0] for name in kept} == {str(new)}
    assert len(kept) == 2


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_the_stamp_of_a_folder_changes_with_its_files(tmp_path, change):
    (tmp_path / "pkg").mkdir()
    file = tmp_path / "pkg" / "a.py"
    file.write_text("1")
    (tmp_path / "pkg" / "note.txt").write_text("1")
    before = folders_stamp([tmp_path], ".py")
    (tmp_path / "pkg" / "note.txt").write_text("22")
    assert folders_stamp([tmp_path], ".py") == before
    if change == "edit":
        file.write_text("22")
    elif change == "add":
        (tmp_path / "b.py").touch()
    elif change == "remove":
        file.unlink()
    else:
        file.rename(file.with_name("b.py"))
    assert folders_stamp([tmp_path], ".py") != before
