"""Runs cellfeed.Loader for many minibatches and prints what memory did, as JSON.

Epoch after epoch, with iterators that are left half way in between, obs columns and tensors. Resident
memory is looked at a thousand times. In the first half pools and the allocator's arenas fill; memory is
flat if it grows by less than 16 MiB in the second, by medians over a tenth of the minibatches each.
"""

import argparse
import json
import os
import statistics
import time

FLAT = 16 << 20


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def counts():
    """Threads and open files."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--minibatches", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--fetch-factor", type=int, default=256)
    parser.add_argument("--obs", nargs="*", help="obs columns; by default the first")
    parser.add_argument("--layout", choices=["csr", "dense"], default="csr")
    parser.add_argument("--output", choices=["numpy", "torch", "scipy"], default="torch")
    args = parser.parse_args()

    import cellfeed

    store = cellfeed.open(args.store)
    loader = cellfeed.Loader(
        store,
        batch_size=args.batch_size,
        fetch_factor=args.fetch_factor,
        obs=store.obs_columns[:1] if args.obs is None else args.obs,
        layout=args.layout,
        output=args.output,
    )
    every = max(1, args.minibatches // 1000)
    seen, samples = 0, []
    start = time.perf_counter()
    for _ in loader:
        seen += 1
        if seen == min(len(loader), args.minibatches) // 2:
            # In the middle of an epoch, as at the end.
            threads, files = counts()
            break
    seen, end = 0, counts()
    while seen < args.minibatches:
        # One that is left after its first minibatch.
        next(iter(loader))
        for batch in loader:
            seen += 1
            if seen % every == 0:
                samples.append(rss())
            if seen == args.minibatches:
                end = counts()
                break
    tenth = max(1, len(samples) // 10)
    middle = len(samples) // 2
    early = statistics.median(samples[tenth : 2 * tenth] or samples)
    half = statistics.median(samples[middle : middle + tenth])
    last = statistics.median(samples[-tenth:])
    print(json.dumps({
        "n_minibatches": seen,
        "seconds": time.perf_counter() - start,
        "rss_after_a_tenth_bytes": early,
        "rss_after_half_bytes": half,
        "rss_end_bytes": last,
        "rss_most_bytes": max(samples),
        "bytes_per_minibatch": (last - half) / max(1, seen * 0.4),
        "flat": last - half < FLAT,
        "threads_start": threads,
        "threads_end": end[0],
        "files_start": files,
        "files_end": end[1],
        "rss_samples_bytes": samples[:: max(1, len(samples) // 100)],
    }))


if __name__ == "__main__":
    main()
