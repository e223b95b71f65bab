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


class Docs(unittest.TestCase):
    def test_links_lead_somewhere(self):
        for doc in documents():
            for target in re.findall(r'\]\(([^)\s#]+)', read(doc)):
                if not re.match(r'[a-z]+:', target):
                    path = os.path.join(ROOT, os.path.dirname(doc), target)
                    self.assertTrue(os.path.exists(path), f'{doc}: {target}')

    def test_failures_have_the_tests_that_they_name(self):
        """THREATS.md: `FILE:NAME`, FILE below tests/, NAME a function or method in it."""
        named = re.findall(r'`([\w./-]+\.(?:c|h|py|sh)):(\w+)`', read('docs', 'THREATS.md'))
        self.assertGreater(len(named), 20)
        for name, test in named:
            self.assertTrue(os.path.exists(os.path.join(ROOT, 'tests', name)), name)
            self.assertTrue(re.search(rf'\b{test}\b', read('tests', name)), f'{name}: no {test}')

    def test_every_failure_names_a_test(self):
        table = read('docs', 'THREATS.md').split('| failure |')[1]
        rows = [row for row in table.splitlines()[2:] if row.startswith('|')]
        for row in rows:
            self.assertRegex(row.split('|')[3], r'`[\w./-]+:\w+`|no test', row)

    def test_make_targets_exist(self):
        targets = set(re.findall(r'^([a-z0-9-]+):', read('Makefile'), re.M))
        for doc in documents():
            for target in re.findall(r'`make ([a-z][a-z0-9-]+)', read(doc)):
                self.assertIn(target, targets, doc)

    def test_nothing_is_left_to_be_written(self):
        for doc in documents():
            self.assertNotRegex(read(doc), r'TODO|FIXME|TBD|XXX', doc)


if __name__ == '__main__':
    unittest.main()
