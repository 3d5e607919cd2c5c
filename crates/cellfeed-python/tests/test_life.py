"""Threads, files, memory, signals, forks: what a process must not be left with."""

import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import cellfeed
from conftest import LISTEN, make, rows_of
from test_remote import Files, Server

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


def threads():
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                names.append(file.read().strip())
        except OSError:
            pass
    return sorted(n for n in names if n.startswith("cellfeed"))


def handles(path):
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return found.count(str(path))


def settles(check):
    """Whether something comes true soon: threads end by themselves."""
    until = time.monotonic() + 10
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_nothing_is_left(h5ad):
    gc.collect()
    assert settles(lambda: not threads()), threads()
    store = cellfeed.open(h5ad)
    loader = cellfeed.Loader(store, batch_size=16, fetch_factor=2)
    next(iter(loader))
    half = iter(loader)
    next(half)
    assert "cellfeed-loader" in threads()
    del half
    assert settles(lambda: "cellfeed-loader" not in threads()), threads()
    third = iter(loader)
    next(third)
    third.close()
    third.close()
    assert next(third, None) is None
    assert settles(lambda: "cellfeed-loader" not in threads()), threads()
    assert handles(h5ad) == 1
    del store, loader, third
    gc.collect()
    assert settles(lambda: not threads()), threads()
    assert handles(h5ad) == 0


def test_a_hook_that_raises_leaves_no_thread(h5ad):
    loader = cellfeed.Loader(h5ad, batch_size=4, fetch_factor=2, batch_transform=lambda b: 1 / 0)
    batches = iter(loader)
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert settles(lambda: "cellfeed-loader" not in threads()), threads()


def test_a_store_that_was_closed(h5ad):
    gc.collect()
    assert settles(lambda: handles(h5ad) == 0)
    with cellfeed.open(h5ad) as store:
        loader = cellfeed.Loader(store, batch_size=16, fetch_factor=2)
        batches = iter(loader)
        next(batches)
        assert handles(h5ad) == 1 and not store.closed
    # What runs goes on to its end.
    assert 16 + sum(len(b) for b in batches) == 1003
    del batches
    assert settles(lambda: handles(h5ad) == 0 and not threads()), threads()
    assert store.closed and "closed" in repr(store)
    for use in (
        lambda: iter(loader),
        lambda: cellfeed.Loader(store),
        lambda: store.X[0],
        lambda: store.obs(),
        lambda: store.shape,
        lambda: pickle.dumps(store),
        lambda: cellfeed.diversity(store, "plate"),
        store.__enter__,
    ):
        with pytest.raises(ValueError, match="atlas.h5ad is closed"):
            use()
    store.close()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("hook", ["fetch_transform", "batch_transform"])
@pytest.mark.parametrize("of", ["store", "array"])
def test_what_was_yielded_is_known_after_a_hook_that_raises(h5ad, error, hook, of):
    sizes = {"batch_size": 16, "block_size": 4, "fetch_factor": 5}

    def make(**hooks):
        if of == "store":
            return cellfeed.Loader(h5ad, **sizes, **hooks)
        return cellfeed.CollectionLoader(np.arange(1003), **sizes, **hooks)

    calls = []

    def broken(data):
        calls.append(data)
        if len(calls) == 3:
            raise error
        return data

    loader = make(**{hook: broken})
    batches, seen = iter(loader), 0
    with pytest.raises(error):
        for _ in batches:
            seen += 1
    assert seen == (10 if hook == "fetch_transform" else 2)
    # The iterator has ended; the loader knows where it was.
    assert next(batches, None) is None
    assert settles(lambda: "cellfeed-loader" not in threads()), threads()
    again = make()
    again.load_state_dict(loader.state_dict())
    want = list(again.plan_rows(0))[seen:]
    got = [b.rows if of == "store" else b for b in again]
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


def test_memory_is_flat(tmp_path):
    path = tmp_path / "tiny.h5ad"
    make(2000, 30).write_h5ad(path)
    loader = cellfeed.Loader(path, batch_size=1, fetch_factor=500, obs=["plate", "note"], output="torch")
    n, sizes = 0, []
    while n < 100_000:
        for batch in loader:
            n += len(batch)
        # Abandoned iterators count too.
        next(iter(loader))
        sizes.append(rss())
    assert len(sizes) == 50
    # What pools keep is there after some epochs.
    assert max(sizes[10:]) - sizes[10] < 8 << 20, [s >> 20 for s in sizes]


def test_the_lock_is_free_while_waiting(tmp_path):
    path = tmp_path / "slow.h5ad"
    make(4000, 300).write_h5ad(path, compression="gzip")
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    for _ in range(5):
        for _ in cellfeed.Loader(path, batch_size=4000, fetch_factor=1, layout="dense"):
            pass
    done.set()
    thread.join()
    assert max(np.diff(ticks)) < 0.5


def test_threads_of_python_have_iterators_of_their_own(h5ad):
    loader = cellfeed.Loader(h5ad, batch_size=8, fetch_factor=4)
    found, lock = [], threading.Lock()

    def run():
        with lock:
            batches = iter(loader)
        found.append(sorted(rows_of(list(batches))))

    workers = [threading.Thread(target=run) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4 and all(rows == list(range(1003)) for rows in found)


class Halting(Files):
    """Answers nothing while the server is told to wait."""

    def do_GET(self):
        self.server.open.wait()
        try:
            super().do_GET()
        except ConnectionError:
            pass


@pytest.fixture
def halting(h5ad):
    """A server of the store, which can be halted, and the store's URL."""
    with Server(("127.0.0.1", 0), Halting) as served:
        served.folder, served.asked, served.open = h5ad.parent, [], threading.Event()
        served.open.set()
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield served, f"http://127.0.0.1:{served.server_port}/{h5ad.name}"
        served.open.set()
        served.shutdown()
        thread.join()


def says(code, told=lambda: None):
    """What a program prints after its line `begun`, which it has a minute for: one that hangs with
    Python's lock could not be ended from within."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout.readline() == "begun\n"
        told()
        return process.communicate("go\n", timeout=60)[0]
    finally:
        process.kill()
        process.wait()


def test_another_thread_may_look_at_an_iterator_that_waits_and_end_it(halting):
    server, url = halting
    code = f"""
        import cellfeed, os, threading, time
        loader = cellfeed.Loader({url!r}, batch_size=16, fetch_factor=2)
        print("begun", flush=True)
        input()
        batches, found = iter(loader), []
        waiting = threading.Thread(target=lambda: found.extend(batches))
        waiting.start()
        time.sleep(0.3)
        print(batches.waited, repr(batches)[:9], loader.state_dict()["minibatch"])
        began = time.monotonic()
        batches.close()
        waiting.join()
        print(found, next(batches, None), batches.waited, time.monotonic() - began < 5, flush=True)
        os._exit(0)
    """
    assert says(code, server.open.clear) == "0.0 <cellfeed 0\n[] None 0.0 True\n"


def test_a_signal_handler_may_look_at_an_iterator_that_waits_and_end_it(halting):
    server, url = halting
    code = f"""
        import cellfeed, os, signal
        loader = cellfeed.Loader({url!r}, batch_size=16, fetch_factor=2)
        print("begun", flush=True)
        input()
        batches = iter(loader)

        def ring(*_):
            print(batches.waited)
            batches.close()

        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        print(next(batches, None), flush=True)
        os._exit(0)
    """
    assert says(code, server.open.clear) == "0.0\nNone\n"


def test_waits_are_counted(halting):
    server, url = halting
    loader = cellfeed.Loader(url, batch_size=16, fetch_factor=2)
    server.open.clear()
    batches = iter(loader)
    threading.Timer(0.3, server.open.set).start()
    assert batches.waited == 0
    next(batches)
    waited = batches.waited
    assert 0.2 < waited < 30
    list(batches)
    in_all = batches.waited
    assert in_all >= waited
    batches.close()
    assert batches.waited == in_all


@pytest.mark.parametrize("hook", [None, "fetch_transform", "batch_transform"])
def test_a_second_thread_is_refused_and_the_first_goes_on(halting, hook):
    server, url = halting
    hooks = {} if hook is None else {hook: lambda batch: batch}
    loader = cellfeed.Loader(url, batch_size=16, fetch_factor=2, **hooks)
    server.open.clear()
    batches, found = iter(loader), []
    waiting = threading.Thread(target=lambda: found.extend(batches))
    waiting.start()
    time.sleep(0.2)
    with pytest.raises(RuntimeError, match="another thread"):
        next(batches)
    server.open.set()
    waiting.join()
    assert sorted(rows_of(found)) == list(range(1003))


def test_another_thread_may_look_at_work_that_is_waited_for(h5ad):
    code = f"""
        import cellfeed, os, threading, time
        from cellfeed import _native
        loader = cellfeed.Loader({str(h5ad)!r})
        labels = _native.Labels.of_column(loader.store._native, "plate")
        work = _native.diversity(loader._plan, labels, window=1, epoch=0, minibatches=1 << 40)
        said = []

        def finish():
            try:
                work.finish()
            except Exception as error:
                said.append(str(error))

        print("begun", flush=True)
        finishing = threading.Thread(target=finish)
        finishing.start()
        time.sleep(0.3)
        print([work.wait() for _ in range(3)], work.progress[2] == 1 << 40)
        work.give_up()
        finishing.join()
        print(said, work.wait(), flush=True)
        os._exit(0)
    """
    assert says(code) == "[False, False, False] True\n['measuring was given up'] True\n"


@pytest.mark.parametrize("where", ["waiting", "looping"])
def test_ctrl_c_ends_a_loop(tmp_path, where, halting):
    path = tmp_path / "atlas.h5ad"
    make(3000, 100).write_h5ad(path)
    # A server that does not answer: opening its store waits.
    server, url = halting
    server.open.clear()
    code = f"""
        {LISTEN}
        import cellfeed, os, time
        loader = cellfeed.Loader({str(path)!r}, batch_size=2, fetch_factor=8)
        iterator = iter(loader)
        try:
            print("begun", flush=True)
            if {where == "waiting"}:
                cellfeed.open({url!r})
            while True:
                for batch in loader:
                    pass
        except KeyboardInterrupt:
            print("interrupted", len(list(iterator)), flush=True)
        os._exit(0)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert said == "interrupted 1500\n" and time.monotonic() - began < 5


def test_a_process_ends_with_iterators_open(h5ad):
    code = f"""
        import cellfeed
        loader = cellfeed.Loader({str(h5ad)!r}, batch_size=2, fetch_factor=8)
        batches = [iter(loader) for _ in range(3)]
        kept = [next(b) for b in batches]
        print("end")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")


def test_a_forked_child_reads_and_ends(h5ad):
    # With an end of the interpreter in the child, where everything is dropped.
    code = f"""
        import cellfeed, os, sys, numpy as np
        store = cellfeed.open({str(h5ad)!r})
        loader = cellfeed.Loader(store, batch_size=16, fetch_factor=4)
        running = iter(loader)
        kept = next(running)
        child = os.fork()
        if child == 0:
            rows = np.concatenate([b.rows for b in loader])
            assert sorted(rows) == list(range(1003))
            assert store.X[3:5].shape == (2, 120)
            try:
                next(running)
            except RuntimeError as error:
                assert "forked" in str(error)
            else:
                raise AssertionError("an iterator of the parent went on")
            del kept
            print("child", flush=True)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("parent", 16 + sum(len(b) for b in running))
    """
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "child\nparent 1003\n", "")


def test_a_file_that_goes_away_or_changes(h5ad, tmp_path):
    path = tmp_path / "moving.h5ad"
    shutil.copy(h5ad, path)
    loader = cellfeed.Loader(path, batch_size=16, fetch_factor=2)
    path.rename(tmp_path / "moved.h5ad")
    # What is open stays open.
    assert len(rows_of(loader)) == 1003
    with pytest.raises(FileNotFoundError, match="moving.h5ad"):
        cellfeed.Loader(path)
    other = cellfeed.Loader(tmp_path / "moved.h5ad", batch_size=16, fetch_factor=2)
    with open(tmp_path / "moved.h5ad", "r+b") as file:
        file.truncate(5000)
    with pytest.raises((OSError, ValueError), match="moved.h5ad"):
        list(other)
