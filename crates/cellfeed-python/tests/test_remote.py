"""Stores behind URLs: options, the cache, and what goes along to other processes."""

import multiprocessing
import pickle
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import cellfeed


class Files(BaseHTTPRequestHandler):
    """Answers byte ranges of the files of a folder."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.server.folder / self.path.lstrip("/")
        self.server.asked.append(self.path)
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Python's five would let connections that come at once wait for seconds.
    request_queue_size = 1024


@pytest.fixture
def server(stores):
    with Server(("127.0.0.1", 0), Files) as served:
        served.folder, served.asked = stores["h5ad"].parent, []
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def url(server, stores):
    return f"http://127.0.0.1:{server.server_port}/{stores['h5ad'].name}"


def epoch(store):
    loader = cellfeed.Loader(store, fetch_factor=4, seed=3, output="numpy")
    batches = list(loader)
    return np.concatenate([b.rows for b in batches]), np.concatenate([b.X.data for b in batches])


def same(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_second_epoch_comes_from_the_cache(server, url, stores, tmp_path):
    expected = epoch(cellfeed.open(stores["h5ad"]))
    options = {"cache_dir": tmp_path / "cache", "cache_size": "1GiB", "connections": 8, "gap": 0}
    with cellfeed.open(url, **options, attempts=2, timeout=5) as store:
        assert same(epoch(store), expected)
        server.asked.clear()
        assert same(epoch(store), expected)
        assert server.asked == []
    with cellfeed.open(url, **options) as store:
        assert same(epoch(store), expected)
        assert len(server.asked) == 1


def test_the_cache_can_be_named_by_the_environment(server, url, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLFEED_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CELLFEED_CACHE_SIZE", "1GiB")
    cellfeed.open(url).X[:]
    assert (tmp_path / "cache" / "cellfeed-cache").is_file()
    server.asked.clear()
    cellfeed.open(url).X[:]
    assert len(server.asked) == 1


def test_a_local_store_makes_no_cache(stores, tmp_path):
    cellfeed.open(stores["h5ad"], cache_dir=tmp_path / "cache").X[:5]
    assert not (tmp_path / "cache").exists()


def _first_rows(store, answers):
    answers.put(store.X[:3].toarray())


def test_options_go_along_to_other_processes(url, tmp_path):
    secret = "very-secret"
    options = {"storage_options": {"user_agent": secret}, "cache_dir": tmp_path / "cache"}
    store = cellfeed.open(url, **options)
    for copy in (store, pickle.loads(pickle.dumps(store))):
        assert copy._options["remote"]["settings"] == [("user_agent", secret)]
        assert secret not in repr(copy) + str(copy)
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    worker = context.Process(target=_first_rows, args=(store, answers))
    worker.start()
    assert np.array_equal(answers.get(timeout=120), store.X[:3].toarray())
    worker.join()


def test_workers_of_a_data_loader_share_the_cache(server, url, stores, tmp_path):
    torch = pytest.importorskip("torch")
    from cellfeed.torch import CellDataset

    expected = sorted(epoch(cellfeed.open(stores["h5ad"]))[0].tolist())
    store = cellfeed.open(url, cache_dir=tmp_path / "cache")
    loader = cellfeed.Loader(store, fetch_factor=4, output="torch", layout="dense")
    batches = torch.utils.data.DataLoader(
        CellDataset(loader), batch_size=None, num_workers=2, multiprocessing_context="spawn"
    )
    for _ in range(2):
        assert sorted(int(r) for batch in batches for r in batch.rows) == expected
    assert len(set(server.asked)) == 1


class Told:
    """A store with something to tell; that a cache has it to tell is tested in Rust."""

    is_here = True

    def __init__(self):
        self.left = ["the cache takes nothing more"]

    def take_warnings(self):
        told, self.left = self.left, []
        return told


def test_what_is_no_error_is_a_warning_and_said_once(stores):
    store = cellfeed.open(stores["h5ad"])
    store._opened = Told()
    with pytest.warns(UserWarning, match="takes nothing more") as told:
        store._warn()
        store.close()
    assert len(told) == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"storage_options": {"colour": "red-hot"}}, ValueError, "colour"),
        ({"storage_options": ["colour"]}, TypeError, "dictionary"),
        ({"storage_options": {"region": 1.5}}, TypeError, "region"),
        ({"storage_options": {3: "x"}}, TypeError, "names"),
        ({"connections": 0}, ValueError, "connections"),
        ({"attempts": -1}, ValueError, "attempts"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"gap": "wide"}, ValueError, "gap"),
        ({"cache_size": "1GiB"}, ValueError, "cache_dir"),
        ({"cache_dir": b"bytes"}, TypeError, "cache_dir"),
    ],
)
def test_what_makes_no_sense_is_said(url, options, error, words, monkeypatch):
    monkeypatch.delenv("CELLFEED_CACHE_DIR", raising=False)
    with pytest.raises(error, match=words) as raised:
        cellfeed.open(url, **options)
    assert "red-hot" not in str(raised.value)


def test_a_folder_of_other_files_is_no_cache(url, tmp_path):
    (tmp_path / "thesis.txt").write_text("text")
    with pytest.raises(ValueError, match="holds other files"):
        cellfeed.open(url, cache_dir=tmp_path)
