#!/usr/bin/env python3
"""The sampling algorithm, version 1, in plain Python: the oracle of the golden plans in cellfeed-core.

Written from docs/sampling.md alone, with no dependency. `python3 plan_reference.py` prints the golden
vectors that the tests of cellfeed-core freeze.
"""

import functools
import math

M64 = (1 << 64) - 1
BLOCK_ORDER, TAIL_PLACE, FETCH_ORDER, STRETCH_START, STRETCH_ORDER, DRAWS = range(1, 7)
FIRST_POINT, PIECE_ORDER = 7, 8


class Stream:
    """ChaCha with 8 rounds; the key is (seed, epoch, purpose, number), the counter starts at 0."""

    def __init__(self, seed, epoch, purpose, number):
        key = b"".join(x.to_bytes(8, "little") for x in (seed, epoch, purpose, number))
        self.key = [int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)]
        self.counter, self.words = 0, []

    def _block(self):
        s = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *self.key]
        s += [self.counter & 0xFFFFFFFF, self.counter >> 32, 0, 0]
        w = list(s)

        def quarter(a, b, c, d):
            for x, y, z, r in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                w[x] = (w[x] + w[y]) & 0xFFFFFFFF
                t = w[z] ^ w[x]
                w[z] = ((t << r) | (t >> (32 - r))) & 0xFFFFFFFF

        for _ in range(4):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        self.words += [(x + y) & 0xFFFFFFFF for x, y in zip(w, s)]
        self.counter += 1

    def word(self):
        if len(self.words) < 2:
            self._block()
        low, high = self.words.pop(0), self.words.pop(0)
        return low | high << 32

    def below(self, bound):
        threshold = (1 << 64) % bound
        while True:
            product = self.word() * bound
            if product & M64 >= threshold:
                return product >> 64

    def shuffle(self, items):
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
    return x ^ (x >> 31)


def permutation(n, seed, epoch, purpose=BLOCK_ORDER, number=0):
    bits = max(n - 1, 255).bit_length()
    low_bits = bits // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << (bits - low_bits)) - 1
    stream = Stream(seed, epoch, purpose, number)
    keys = [stream.word() for _ in range(12)]

    def apply(x):
        while True:
            low, high = x & low_mask, x >> low_bits
            for a, b in zip(keys[::2], keys[1::2]):
                low = (low ^ mix(high ^ a)) & low_mask
                high = (high ^ mix(low ^ b)) & high_mask
            x = high << low_bits | low
            if x < n:
                return x

    return apply


def deal(n, m, f, world=1, drop_last=False, start=0):
    """The rounds from position `start` on: (full rounds, first position after them, share of the last
    round, how many ranks have one cell more, minibatches each rank makes of its share)."""
    size = world * m * f
    full, left = divmod(n - start, size)
    if not drop_last and 0 < left < world and full > 0:
        full, left = full - 1, left + size
    share, more = divmod(left, world)
    count = share // m if drop_last else min(-(-(share + (more > 0)) // m), share)
    return full, n - left, share, more, count


def cut(order, m, count):
    """`count` minibatches: full ones first, at least one cell left for each that follows."""
    at = [min(j * m, len(order) - (count - j)) for j in range(count)] + [len(order)]
    return [order[i:j] for i, j in zip(at, at[1:])]


def fetches(n, m, f, world=1, drop_last=False, start=0):
    full, _, _, _, count = deal(n, m, f, world, drop_last, start)
    return full + (count > 0)


def part(n, m, f, k, rank=0, world=1, drop_last=False, start=0):
    """Fetch k of a rank: (its number, first position, position past the last, cells kept, minibatches)."""
    full, rest, share, more, count = deal(n, m, f, world, drop_last, start)
    number = start // (m * f) + k * world + rank
    if k < full:
        return number, number * m * f, (number + 1) * m * f, m * f, f
    first = rest + rank * share + min(rank, more)
    mine = share + (rank < more)
    return number, first, first + mine, count * m if drop_last else mine, count


def uniform(blocks, seed, epoch, per_fetch):
    return permutation(blocks, seed, epoch)


def spread(i, n):
    step = max(1, n * 610 // 987)
    while math.gcd(step, n) != 1:
        step -= 1
    return i * step % n


def stratified(blocks, seed, epoch, per_fetch):
    first = Stream(seed, epoch, STRETCH_START, 0).below(blocks) if blocks else 0
    groups, rest = divmod(blocks, per_fetch)
    bounds = [s * blocks // per_fetch for s in range(per_fetch + 1)]
    longer = [s for s in range(per_fetch) if bounds[s + 1] - bounds[s] > groups]

    def apply(slot):
        group, place = divmod(slot, per_fetch)
        s = spread(place, per_fetch) if group < groups else longer[spread(place, rest)]
        size = bounds[s + 1] - bounds[s]
        within = permutation(size, seed, epoch, STRETCH_ORDER, s)(group) if size > 1 else 0
        return (first + bounds[s] + within) % blocks

    return apply


def by_label(labels, b):
    """An order of blocks for stratified shuffling by label; `labels` has one tuple for each cell."""

    def most(block):
        return max(block, key=lambda label: (block.count(label), -block.index(label)))

    blocks = [labels[i : i + b] for i in range(0, len(labels) // b * b, b)]
    order = sorted(range(len(blocks)), key=lambda j: (most(blocks[j]), j))

    def slots(blocks, seed, epoch, per_fetch):
        place = stratified(blocks, seed, epoch, per_fetch)
        return lambda slot: order[place(slot)]

    return slots


def fetch(n, b, m, f, seed, epoch, k, shuffle=True, slots=uniform, **world):
    """Minibatches of fetch k as lists of rows; b = 0 means streaming; `slots` orders blocks."""
    number, start, end, keep, count = part(n, m, f, k, **world)
    if b == 0:
        rows = list(range(start, end))
    else:
        full, tail = divmod(n, b)
        swap = Stream(seed, epoch, TAIL_PLACE, 0).below(full + 1) if tail else full
        apply = slots(full, seed, epoch, max(1, m * f // b))

        def row(p):
            if p >= full * b:
                return p if swap == full else apply(swap) * b + p - full * b
            position, offset = divmod(p, b)
            if position == swap and offset < tail:
                return full * b + offset
            return apply(position) * b + offset

        rows = sorted(row(p) for p in range(start, end))
    order = list(range(len(rows)))
    if shuffle:
        Stream(seed, epoch, FETCH_ORDER, number).shuffle(order)
    return [[rows[i] for i in mb] for mb in cut(order[:keep], m, count)]


def epoch(n, b, m, f, seed, e, shuffle=True, slots=uniform, **world):
    size = {key: value for key, value in world.items() if key != "rank"}
    every = range(fetches(n, m, f, **size))
    return [mb for k in every for mb in fetch(n, b, m, f, seed, e, k, shuffle, slots, **world)]


def weighted(weights, draws, b, m, f, seed, epoch, k, **world):
    """Minibatches of fetch k of weighted sampling over cells with these weights."""
    number, start, end, keep, count = part(draws, m, f, k, **world)
    add = lambda values: functools.reduce(lambda x, y: x + y, values, 0.0)  # sum() is compensated
    blocks = [range(i, min(i + b, len(weights))) for i in range(0, len(weights), b)]
    sums, total = [], 0.0
    for block in blocks:
        total += add(weights[i] for i in block)
        sums.append(total)
    stream = Stream(seed, epoch, DRAWS, number)
    unit = lambda: (stream.word() >> 11) / 2.0**53
    cells, left = [], end - start
    while left > 0:
        u = unit() * total
        block = blocks[min(sum(s <= u for s in sums), sum(s < total for s in sums))]
        step = add(weights[i] for i in block) / b
        following, reached, drawn = unit() * step, 0.0, []
        for i in block:
            reached += weights[i]
            while following < reached and len(drawn) < b:
                drawn.append(i)
                following += step
        drawn += [max(block, key=lambda i: weights[i])] * (b - len(drawn))
        if left < b:
            order = list(range(b))
            stream.shuffle(order)
            drawn = [drawn[i] for i in order[:left]]
        cells += drawn
        left -= b
    cells.sort()
    order = list(range(len(cells)))
    Stream(seed, epoch, FETCH_ORDER, number).shuffle(order)
    return [[cells[i] for i in mb] for mb in cut(order[:keep], m, count)]


def without_replacement(weights, draws, b, seed, epoch):
    """The cells of an epoch of weighted sampling without replacement, in file order."""
    most = sum(w > 0 for w in weights)
    scale, cut, limit = math.inf, 0, math.inf
    while draws < most:
        total = 0.0
        for i in range(0, len(weights), 1 << 16):
            part = [w for w in weights[i : i + (1 << 16)] if 0 < w < limit]
            total += functools.reduce(lambda x, y: x + y, part, 0.0)
        scale = (draws - cut) / total
        now = most - sum(0 < w < 1 / scale for w in weights)
        if now <= cut or now >= draws:
            break
        cut, limit = now, 1 / scale
    one = 1 << min(62 - (draws + 1).bit_length(), 52)
    lines = []
    for first in range(0, len(weights), b):
        total, given, line = 0.0, 0, []
        for cell in range(first, min(first + b, len(weights))):
            piece = 0
            if weights[cell] > 0:
                total += min(weights[cell] * scale, 1.0)
                whole = math.floor(total * one)
                upto = whole + (total * one - whole >= 0.5)
                piece = min(max(upto - given, 0), one)
                given += piece
            line.append((cell, piece))
        lines.append(line)
    length = sum(piece for line in lines for _, piece in line)
    point = Stream(seed, epoch, FIRST_POINT, 0).below(min(max(length - (draws - 1) * one, 1), one))
    cells, end = [], 0
    for block, line in enumerate(lines):
        order = list(range(len(line)))
        Stream(seed, epoch, PIECE_ORDER, block).shuffle(order)
        for i in order:
            cell, piece = line[i]
            end += piece
            if point < end and len(cells) < draws:
                cells.append(cell)
                point += one
    return sorted(cells)


if __name__ == "__main__":
    words = Stream(1, 2, BLOCK_ORDER, 3)
    print("words ", [words.word() for _ in range(3)])
    print("blocks", epoch(23, 4, 4, 2, 0, 0))
    print("random", epoch(10, 1, 4, 1, 42, 7, drop_last=True))
    print("stream", epoch(9, 0, 2, 2, 5, 1))
    rows = sorted(r for mb in fetch(100_000_000, 16, 64, 256, 1, 9, 4321) for r in mb)
    starts = [r for i, r in enumerate(rows) if i == 0 or rows[i - 1] != r - 1]
    print("starts", starts[:4])
    for rank in range(3):
        print("rank", rank, epoch(50, 4, 4, 2, 3, 1, rank=rank, world=3))
    print("stratified", epoch(31, 2, 4, 2, 5, 2, slots=stratified))
    chosen = [r for r in range(60) if r % 7 < 3]
    subset = epoch(len(chosen), 2, 4, 2, 1, 0, slots=stratified, rank=1, world=2)
    print("subset", [[chosen[i] for i in mb] for mb in subset])
    weights = [float(r % 5) for r in range(21)]
    print("weighted", [mb for k in range(3) for mb in weighted(weights, 19, 3, 4, 2, 9, 4, k)])
    codes = [(r // 5 % 3,) for r in range(43)]
    print("by label", epoch(43, 2, 4, 2, 3, 1, slots=by_label(codes, 2)))
    cells = without_replacement([float(r % 5) for r in range(41)], 19, 3, 9, 4)
    print("without", [[cells[i] for i in mb] for mb in epoch(19, 3, 4, 2, 9, 4)])
