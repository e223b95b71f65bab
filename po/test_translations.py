#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every text is in every catalogue, translated, with the same formats; and the program prints it.

Arguments: po/ of the source, po/ of the build, penstock.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE, BUILD, PENSTOCK = sys.argv[1:4]
ROOT = os.path.dirname(os.path.abspath(SOURCE))
QUIET = {'PATH': os.environ['PATH'], 'LC_ALL': 'C'}


def listed(name):
    with open(os.path.join(SOURCE, name), encoding='utf-8') as f:
        return [line.strip() for line in f if line.strip() and not line.startswith('#')]


def run(*cmd, **env):
    r = subprocess.run(cmd, env=dict(QUIET, **env), capture_output=True, text=True, check=False)
    return r.returncode, r.stdout + r.stderr


def is_chinese(text):
    return re.search('[\u4e00-\u9fff]', text) is not None


class Catalogues(unittest.TestCase):
    def test_every_file_with_texts_is_listed(self):
        names = set(listed('POTFILES'))
        for folder, _, files in os.walk(os.path.join(ROOT, 'src')):
            for name in files:
                path = os.path.relpath(os.path.join(folder, name), ROOT)
                if not re.search(r'\.[ch]$', name):
                    continue
                with open(os.path.join(ROOT, path), encoding='utf-8') as f:
                    if re.search(r'(?<!\w)(_|N_)\(\s*"', f.read()):
                        self.assertIn(path, names, 'add it to po/POTFILES')
        for path in names:
            self.assertTrue(os.path.exists(os.path.join(ROOT, path)), path)

    def test_nothing_is_missing_stale_or_malformed(self):
        if not shutil.which('xgettext') or not shutil.which('msgcmp'):
            self.skipTest('gettext is not installed')
        with tempfile.TemporaryDirectory(prefix='pen-po-') as tmp:
            pot = os.path.join(tmp, 'penstock.pot')
            code, text = run('xgettext', '--from-code=UTF-8', '--keyword=_', '--keyword=N_', f'--directory={ROOT}',
                             '-o', pot, *listed('POTFILES'))
            self.assertEqual(code, 0, text)
            for language in listed('LINGUAS'):
                po = os.path.join(SOURCE, f'{language}.po')
                code, text = run('msgfmt', '--check', '-o', '/dev/null', po)
                self.assertEqual((code, text), (0, ''))
                # Neither untranslated nor fuzzy passes msgcmp; nor does a text of the sources that the catalogue lacks.
                code, text = run('msgcmp', po, pot)
                self.assertEqual((code, text), (0, ''), 'run: meson compile penstock-pot penstock-update-po, and translate')
                code, text = run('msgcmp', pot, po, '--use-untranslated')
                self.assertEqual((code, text), (0, ''), 'the catalogue holds texts that are no longer there')


class Program(unittest.TestCase):
    def says(self, *args, **env):
        return run(PENSTOCK, *args, **env)[1]

    def test_english_without_a_wish(self):
        self.assertIn('Usage: penstock', self.says('--help', LC_ALL='C'))

    def test_penstock_lang_needs_no_locale(self):
        for lang in ('zh_CN', 'zh_CN.UTF-8', 'zh'):
            self.assertIn('用法：penstock', self.says('--help', LC_ALL='C', PENSTOCK_LANG=lang))
        self.assertIn('Usage:', self.says('--help', PENSTOCK_LANG='../../etc'))
        self.assertIn('Usage:', self.says('--help', PENSTOCK_LANG='en', LC_ALL='C.UTF-8', LANGUAGE='zh_CN'))

    def test_lang_that_the_machine_lacks(self):
        with tempfile.TemporaryDirectory(prefix='pen-po-') as empty:
            self.assertIn('用法：penstock', self.says('--help', LC_ALL='zh_CN.UTF-8', LOCPATH=empty))
            self.assertIn('Usage:', self.says('--help', LC_ALL='de_DE.UTF-8', LOCPATH=empty))

    def test_a_generated_locale(self):
        if not shutil.which('localedef') or not os.path.exists('/usr/share/i18n/locales/zh_CN'):
            self.skipTest('localedef and its sources are not installed')
        with tempfile.TemporaryDirectory(prefix='pen-po-') as tmp:
            code, text = run('localedef', '-i', 'zh_CN', '-f', 'UTF-8', os.path.join(tmp, 'zh_CN.UTF-8'))
            self.assertEqual(code, 0, text)
            self.assertIn('用法：penstock', self.says('--help', LC_ALL='zh_CN.UTF-8', LOCPATH=tmp))
            text = self.says('run', '--start', '--memory', '900T', '--', 'true', LC_ALL='zh_CN.UTF-8', LOCPATH=tmp, XDG_RUNTIME_DIR=tmp,
                             PENSTOCK_SOCKET=os.path.join(tmp, 'penstock.sock'))
            self.assertTrue('penstockd' in text or is_chinese(text), text)

    def test_errors_of_contracts(self):
        text = self.says('run', '--memory', '3G..1G', '--', 'true', PENSTOCK_LANG='zh_CN')
        self.assertTrue(is_chinese(text), text)
        self.assertIn('memory', text)     # the field's name is a code and stays

    def test_doctor(self):
        env = {'PENSTOCK_LANG': 'zh_CN', 'XDG_RUNTIME_DIR': '/nonexistent', 'PENSTOCK_SOCKET': '/nonexistent/socket'}
        for line in self.says('doctor', **env).splitlines():
            if line.strip() and not re.search(r'glibc|XDG_RUNTIME_DIR=|^\s*OpenCL: |docs/|make bench', line):
                self.assertTrue(is_chinese(line), line)

    def test_what_a_private_daemon_refuses(self):
        with tempfile.TemporaryDirectory(prefix='pen-po-') as tmp:
            text = self.says('run', '--start', '--memory', '900T', '--', 'true', PENSTOCK_LANG='zh_CN', XDG_RUNTIME_DIR=tmp,
                             PENSTOCK_SOCKET=os.path.join(tmp, 'penstock.sock'))
        if 'penstockd' in text:
            self.skipTest('penstockd is not built')
        self.assertIn('memory: ', text)      # the field's name and its colon are read by programs
        self.assertTrue(is_chinese(text), text)

    def test_json_is_never_translated(self):
        self.assertIn('"status": "ok"', self.says('doctor', '-o', 'json', PENSTOCK_LANG='zh_CN'))


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
