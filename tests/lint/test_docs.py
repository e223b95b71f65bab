#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the documents name exists: files they link to, tests that they promise, benchmarks, make targets."""
import glob
import os
import re
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding='utf-8') as f:
        return f.read()


def documents():
    return sorted(os.path.relpath(p, ROOT) for p in glob.glob(os.path.join(ROOT, '*.md')) +
                  glob.glob(os.path.join(ROOT, 'docs', '*.md')))


def runs(text, name, test):
    """Is `test` defined in this text of a file, and, unless something finds it by its name, used?"""
    if name.endswith('.py'):
        return re.search(rf'^\s*def {test}\(', text, re.M)
    if f'cmocka_unit_test({test})' in text:    # does not compile without one
        return True
    defined = re.search(rf'^(?:static )?\w[\w ]*[ *]{test}\(', text, re.M)
    return defined and (test == 'main' or len(re.findall(rf'\b{test}\b', text)) > 1)


def complaints(threats):
    """Of the table of failures: each row names tests as `FILE:NAME`, FILE below tests/, NAME a function in it that runs."""
    bad = []
    table = threats.split('| failure |')[1]
    for row in (r for r in table.splitlines()[2:] if r.startswith('|')):
        failure, cell = row.split('|')[1].strip(), row.split('|')[3]
        words = re.findall(r'`([^`]*)`', cell)
        if not words:
            bad.append(f'{failure}: no test')
        for word in words:
            m = re.fullmatch(r'([\w./-]+\.(?:c|h|py)):(\w+)', word)
            if not m:
                bad.append(f'{failure}: {word} is no FILE:NAME')
            elif not os.path.exists(os.path.join(ROOT, 'tests', m[1])):
                bad.append(f'{failure}: {m[1]}: no such file')
            elif not runs(read('tests', m[1]), m[1], m[2]):
                bad.append(f'{failure}: {m[1]}: no {m[2]}, or it is never called')
    return bad


class Docs(unittest.TestCase):
    def test_links_lead_somewhere(self):
        for doc in documents():
            for target in re.findall(r'\]\(([^)\s#]+)', read(doc)):
                if not re.match(r'[a-z]+:', target):
                    path = os.path.join(ROOT, os.path.dirname(doc), target)
                    self.assertTrue(os.path.exists(path), f'{doc}: {target}')

    def test_failures_have_the_tests_that_they_name(self):
        """THREATS.md names no test that does not exist or does not run, and no failure without one."""
        self.assertEqual(complaints(read('docs', 'THREATS.md')), [])

    def test_complains(self):
        good = '`unit/test_mem.c:test_race`'
        for cell, text in ((good, None), ('`unit/test_mem.c:test_nonesuch`', 'no test_nonesuch'), ('', 'no test'),
                           ('no test', 'no test'), ('`unit/test_none.c:test_race`', 'no such file'),
                           (good + ', `daemon/test_attach.py:who`', 'no who'), (good + ' `unit/test_mem.c`', 'is no FILE:NAME'),
                           ('`unit/test_mem.c:assert_int_equal`', 'no assert_int_equal')):
            found = complaints(f'x\n\n| failure | what happens | test |\n|---|---|---|\n| rain | wet | {cell} |\n')
            self.assertEqual(len(found), text is not None, found)
            self.assertIn(text or '', ''.join(found))

    def test_make_targets_exist(self):
        targets = set(re.findall(r'^([a-z0-9-]+):', read('Makefile'), re.M))
        for doc in documents():
            for target in re.findall(r'`make ([a-z][a-z0-9-]+)', read(doc)):
                self.assertIn(target, targets, doc)

    def test_metrics_are_listed(self):
        """API.md names every metric that metrics.c prints, and no other."""
        source = read('src', 'daemon', 'metrics.c')
        printed = set(re.findall(r'^\tX\("(\w+)"', source, re.M)) | set(re.findall(r'head\(o->f, "(\w+)"', source)) | \
            set(re.findall(r'^\t\t\{ "(\w+)", "(?:counter|gauge)"', source, re.M))
        listed = set(re.findall(r'`(\w+)`', read('docs', 'API.md').split('## Metrics')[1].split('\n## ')[0])) - {'penstock_'}
        self.assertGreater(len(printed), 20)
        self.assertEqual(printed, listed)

    def test_nothing_is_left_to_be_written(self):
        for doc in documents():
            self.assertNotRegex(read(doc), r'TODO|FIXME|TBD|XXX', doc)


if __name__ == '__main__':
    unittest.main()
