"""What the benchmark scripts share: building, running, the page cache, and the facts to record.

Standard library only. Nothing here prints a user's or a machine's name: results are committed.
"""

import ctypes
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def build(package, binary):
    """Builds a release binary and answers its path."""
    command = ["cargo", "build", "--release", "--quiet", "-p", package, "--bin", binary]
    print("building", binary, "...", file=sys.stderr)
    subprocess.run(command, cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return str(pathlib.Path(ROOT, target, "release", binary))


def first_line(*command):
    """The first line that a command prints; None if it fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return (done.stdout.splitlines() or [""])[0]


def facts():
    """The machine, the commit and the compiler."""
    cpu = None
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), None)
    except OSError:
        pass
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": pages,
        "kernel": f"{platform.system()} {platform.release()}",
        "commit": first_line("git", "rev-parse", "HEAD"),
        "uncommitted_changes": bool(changed),
        "rustc": first_line("rustc", "--version"),
        "python": platform.python_version(),
    }


def environment():
    """The environment for contestants: without limits on the threads of numeric libraries."""
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    return {key: value for key, value in os.environ.items() if key not in limits}


def run_json(command, show):
    """Runs a command that prints one JSON object last; answers it with what the run was like.

    `show` maps words of the command to what the record shows instead of them. A failure is an
    answer with the key `error`.
    """
    load = os.getloadavg()[0]
    start = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment(),
        check=False,
    )
    wall = time.perf_counter() - start
    lines = done.stdout.strip().splitlines()
    # One object on the last line, or spread over all of them.
    report = {}
    if done.returncode == 0:
        try:
            report = json.loads(lines[-1])
        except (IndexError, ValueError):
            try:
                report = json.loads(done.stdout)
            except ValueError:
                report = {"error": "no JSON was printed"}
    else:
        tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
        report = {"error": f"exit {done.returncode}: {tail}"}
    for hidden, shown in show.items():
        if "error" in report:
            report["error"] = report["error"].replace(str(hidden), shown)
    shown = " ".join(show.get(str(word), str(word)) for word in command)
    return {**report, "command": shown, "load_before": round(load, 2), "wall_seconds": wall}


def resident_share(path):
    """The share of a file's pages that the page cache holds."""
    size = os.path.getsize(path)
    page = os.sysconf("SC_PAGE_SIZE")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64
    ]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        address = libc.mmap(None, size, 1, 1, descriptor, 0)  # PROT_READ, MAP_SHARED
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "cannot map", path)
        pages = (ctypes.c_ubyte * ((size + page - 1) // page))()
        failed = libc.mincore(address, size, pages)
        libc.munmap(address, size)
        if failed:
            raise OSError(ctypes.get_errno(), "mincore failed", path)
        return sum(byte & 1 for byte in bytes(pages)) / len(pages)
    finally:
        os.close(descriptor)


def files_of(store):
    """The files of a store: itself, or those in its folder."""
    path = pathlib.Path(store)
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def drop_from_cache(path):
    """Takes a file out of the page cache; answers the share that stayed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return resident_share(path)


def warm_cache(path):
    """Reads a file once, so that the page cache holds it; answers the share that it does."""
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(8 << 20)
        while file.readinto(buffer):
            pass
    return resident_share(path)


def median(values):
    """The median, None for no values."""
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def table(rows, header):
    """Text columns, the first to the left and the others to the right."""
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def number(value, digits=0):
    """A number for people; a dash for None."""
    return "-" if value is None else f"{value:,.{digits}f}"


def save(result, path):
    """Writes the record, and beside it the raw runs as CSV."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    keys = []
    for run in result["runs"]:
        keys += [key for key in run if key not in keys]
    import csv

    with open(path.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(result["runs"])
    print("wrote", path.name, "and", path.with_suffix(".csv").name, file=sys.stderr)


# Options that say where something is, or nothing of the runs.
PLACES = ("stores", "by_reads", "contestants", "folder", "cellfeed", "roofline", "note", "out")


def keep(args, what, summaries, runs, **more):
    """Saves what a script found, with the facts of the machine and its options, if `--out` asks for it."""
    if not args.out:
        return
    options = {key: value for key, value in vars(args).items() if key not in PLACES}
    save({
        "what": what, "note": args.note, **facts(), **more, "options": options,
        "summaries": summaries, "runs": runs,
    }, args.out)
