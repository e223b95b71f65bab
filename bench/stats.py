# SPDX-License-Identifier: Apache-2.0
"""Figures of the benchmarks: quantiles, bootstrap intervals, goal lines, CSV files. Standard library only.

A ratio of quantiles has no simple error formula, so its interval comes from the bootstrap. Requests of one
block share the machine's mood of that moment; resampling single requests would treat them as independent and
give intervals that are too narrow. So whole blocks are resampled (with their requests), which is what "arms
alternate in short blocks" is for.
"""
import csv
import os
import random

BOOTSTRAPS = 2000


def quantile(values, q):
    """Linear interpolation between order statistics; values need not be sorted."""
    if not values:
        return float('nan')
    v = sorted(values)
    at = q * (len(v) - 1)
    lo = int(at)
    hi = min(lo + 1, len(v) - 1)
    return v[lo] + (v[hi] - v[lo]) * (at - lo)


def median(values):
    return quantile(values, 0.5)


def pooled(blocks):
    return [x for b in blocks for x in b]


def resample(blocks, rng):
    """One bootstrap draw: blocks with replacement. With a single block, its values with replacement."""
    if len(blocks) > 1:
        return pooled([blocks[rng.randrange(len(blocks))] for _ in blocks])
    return [blocks[0][rng.randrange(len(blocks[0]))] for _ in blocks[0]]


def interval(statistic, *arms, draws=BOOTSTRAPS, seed=1):
    """statistic(values of arm 1, values of arm 2, ...) and its 95 % interval; an arm is a list of blocks."""
    if any(not pooled(a) for a in arms):
        return float('nan'), float('nan'), float('nan')
    rng = random.Random(seed)
    arms = [[b for b in a if b] for a in arms]
    draws = sorted(statistic(*[resample(a, rng) for a in arms]) for _ in range(draws))
    return statistic(*[pooled(a) for a in arms]), quantile(draws, 0.025), quantile(draws, 0.975)


def quantile_ratio(a, b, q, plus=0.0):
    """(quantile q of a) / (quantile q of b + plus) with its interval."""
    draws = BOOTSTRAPS if len(pooled(a)) < 5000 else 400
    return interval(lambda x, y: quantile(x, q) / (quantile(y, q) + plus), a, b, draws=draws)


def verdict(low, high, limit, at_least=False):
    if low != low or high != high:
        return 'undecided'
    if at_least:
        return 'holds' if low >= limit else 'short' if high < limit else 'undecided'
    return 'holds' if high <= limit else 'short' if low > limit else 'undecided'


def number(x):
    if x != x:
        return '-'
    return f'{x:.0f}' if abs(x) >= 1000 else f'{x:.4g}'


class Report:
    """Collects what a benchmark found; prints it and leaves it in build/bench/NAME.csv."""

    def __init__(self, name, directory, judges):
        self.name, self.judges, self.rows = name, judges, []
        os.makedirs(directory, exist_ok=True)
        self.path = os.path.join(directory, name + '.csv')

    def note(self, key, value):
        self.rows.append(('note', key, value, '', '', '', ''))

    def figure(self, key, value, low='', high='', unit=''):
        self.rows.append(('figure', key, value, low, high, unit, ''))

    def goal(self, metric, value, low, high, limit, at_least=False, unit=''):
        """The one line in which a goal ends. A quick run has too few samples: it prints nothing and judges nothing."""
        word = verdict(low, high, limit, at_least)
        sign = '>=' if at_least else '<='
        want = f'{sign} {limit}: {word}' if self.judges else ''
        self.rows.append(('goal' if self.judges else 'figure', metric, value, low, high, unit, want))
        if self.judges:
            unit = f' {unit}' if unit else ''
            print(f'goal: {metric} = {number(value)}{unit} [{number(low)}, {number(high)}] '
                  f'(want {sign} {number(limit)}{unit}): {word}')

    def save(self):
        with open(self.path, 'w', newline='', encoding='utf-8') as f:
            w = csv.writer(f, lineterminator='\n')
            w.writerow(('kind', 'name', 'value', 'low', 'high', 'unit', 'want'))
            w.writerows(self.rows)
        print(f'written: {self.path}')


def table(header, rows):
    """Plain columns, first one left-aligned."""
    cells = [[str(c) for c in r] for r in [header, *rows]]
    widths = [max(len(r[i]) for r in cells) for i in range(len(header))]
    for r in cells:
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))]
        print('  ' + '  '.join(padded).rstrip())
