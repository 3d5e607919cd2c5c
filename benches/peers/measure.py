"""What the scripts that stream a peer's minibatches share: options, the measuring loop, the report.

A script makes its loader and then goes

    meter = Meter(args, opened)
    for minibatch in epochs(args, loader):
        if meter.took(cells, values):
            break
    meter.report("peer", "numpy")

Every value is summed up, as a training step would touch it and as `cellfeed stream` does. A wait is the
time from being done with a minibatch to having the next one; the first is told apart.
"""

import importlib.metadata
import json
import os
import resource
import time


def options(parser):
    """Adds what every script takes."""
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long; 0: one whole epoch")
    parser.add_argument("--step-ms", type=float, default=0, help="sleep so long after each minibatch")
    parser.add_argument(
        "--label", metavar="COLUMN",
        help="measure no speed: print the entropy of this column in minibatches",
    )


def epochs(args, loader):
    """Minibatches of one epoch after the other, for as long as is asked for; of one if nothing is."""
    while True:
        yield from loader
        if not args.seconds:
            return


def peak_rss():
    """The most resident memory of this process so far, in bytes."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def cpu_seconds():
    """CPU seconds of this process and of worker processes that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def labels_of(h5ad, column):
    """The codes of an obs column of a .h5ad file, in file order."""
    import anndata

    return anndata.read_h5ad(h5ad, backed="r").obs[column].astype("category").cat.codes.to_numpy()


def entropy(minibatches, batch_size, most=3000):
    """Prints the mean Shannon entropy, in bits, of labels within minibatches; partial ones do not count."""
    import numpy

    total = n = 0
    for labels in minibatches:
        if len(labels) < batch_size:
            continue
        _, counts = numpy.unique(numpy.asarray(labels), return_counts=True)
        shares = counts / counts.sum()
        total -= float((shares * numpy.log2(shares)).sum())
        n += 1
        if n == most:
            break
    print(json.dumps({"entropy_bits": total / n if n else None, "n_minibatches": n}))


class Meter:
    """Measures a loop over minibatches, from its making on."""

    def __init__(self, args, open_seconds, imported=None, workers=0):
        self.seconds, self.step, self.workers = args.seconds, args.step_ms / 1e3, workers
        self.facts = {"open_seconds": open_seconds, "rss_after_imports_bytes": imported}
        self.cells = self.minibatches = self.nnz = 0
        self.total = self.elapsed = self.summing = 0.0
        self.waits = []
        self.value_type = None
        self.cpu, self.thread = cpu_seconds(), time.thread_time()
        self.start = self.ready = time.perf_counter()

    def took(self, cells, values, nnz=None, may_stop=True):
        """Takes the values of a minibatch (NumPy); answers whether it has been long enough."""
        self.waits.append(time.perf_counter() - self.ready)
        before = time.thread_time()
        self.total += float(values.sum(dtype="f8"))
        self.summing += time.thread_time() - before
        self.nnz += int(values.size if nnz is None else nnz)
        self.cells += int(cells)
        self.minibatches += 1
        self.value_type = str(values.dtype)
        if self.step:
            time.sleep(self.step)
        self.ready = time.perf_counter()
        self.elapsed = self.ready - self.start
        return bool(may_stop and self.seconds and self.elapsed >= self.seconds)

    def report(self, *packages, **more):
        """Prints how it went."""
        if not self.waits:
            raise SystemExit("no minibatch came")
        thread = time.thread_time() - self.thread
        later = sorted(self.waits[1:]) or [0.0]
        peak = peak_rss()
        if self.workers:
            # The largest counts for each.
            peak += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 * self.workers
        print(json.dumps({
            "n_cells": self.cells,
            "n_minibatches": self.minibatches,
            "seconds": self.elapsed,
            "cells_per_second": self.cells / self.elapsed,
            **self.facts,
            "first_minibatch_seconds": self.waits[0],
            "consumer_wait_seconds": sum(self.waits),
            "wait_p50_seconds": later[len(later) // 2],
            "wait_p99_seconds": later[len(later) * 99 // 100],
            "wait_max_seconds": later[-1],
            "cpu_seconds": cpu_seconds() - self.cpu,
            # Of the thread that iterates: the sums, and all else that the loop costs.
            "summing_seconds": self.summing,
            "loop_seconds": thread - self.summing,
            "peak_rss_bytes": peak,
            "sum": self.total,
            "nnz": self.nnz,
            "value_type": self.value_type,
            **more,
            "versions": {name: importlib.metadata.version(name) for name in packages},
        }))
