"""A store that is not local and gives no ETag: a folder below another, by pyarrow's own file system."""

from pyarrow import fs

from storage.files import Store


def remote_store(folder):
    """Files written into `folder` are the store's."""
    folder.mkdir(exist_ok=True)
    store = Store(str(folder))
    store.fs, store.base, store.local = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), "", False
    store.uri = "elsewhere://bucket"
    return store
