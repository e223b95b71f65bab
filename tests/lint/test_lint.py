#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shows that every lint script fails, with file and line, on a bad example, and passes on its good twin."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'tools')
CC = os.environ.get('CC', 'cc').split()[-1]


def run(*cmd, **kw):
    r = subprocess.run(cmd, capture_output=True, text=True, check=False, **kw)
    return r.returncode, r.stdout + r.stderr


class Tree(unittest.TestCase):
    """A small tree in a temporary folder."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='pen-lint-')
        self.addCleanup(shutil.rmtree, self.dir)

    def write(self, path, text):
        full = os.path.join(self.dir, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, 'w', encoding='utf-8') as f:
            f.write(text)
        return full

    def compile(self, *sources):
        """Compiles into build/ and records the commands as meson does."""
        commands = []
        for source in sources:
            out = os.path.join('build', source.replace('/', '_') + '.o')
            os.makedirs(os.path.join(self.dir, 'build'), exist_ok=True)
            code, text = run(CC, '-w', '-O1', '-fPIC', '-Isrc', '-c', source, '-o', out, cwd=self.dir)
            self.assertEqual(code, 0, text)
            commands.append({'directory': self.dir, 'file': source, 'output': out, 'command': ''})
        self.write('build/compile_commands.json', json.dumps(commands))

    def layering(self, *args):
        return run(os.path.join(TOOLS, 'lint-layering.py'), '--root', self.dir, *args)

    def layering_objects(self):
        return self.layering('--build', os.path.join(self.dir, 'build'))

    def assert_fault(self, result, *texts):
        code, out = result
        self.assertEqual(code, 1, out)
        for text in texts:
            self.assertIn(text, out)

    def assert_clean(self, result):
        self.assertEqual(result[0], 0, result[1])


class Includes(Tree):
    def test_allowed(self):
        self.write('src/gate/a.c', '#include "board/x.h"\n#include "gate/a.h"\n#include <errno.h>\n')
        self.write('src/board/x.h', '\n')
        self.assert_clean(self.layering())

    def test_upwards(self):
        self.write('src/board/a.c', '\n#include "gate/gate.h"\n')
        self.assert_fault(self.layering(), 'src/board/a.c:2: board must not include gate/gate.h')

    def test_daemon_does_not_know_the_gate(self):
        self.write('src/daemon/a.c', '#include "gate/gate.h"\n')
        self.assert_fault(self.layering(), 'src/daemon/a.c:1:')

    def test_one_shim_does_not_know_another(self):
        self.write('src/shim/opencl/a.c', '#include "shim/opencl/a.h"\n#include "shim/cuda/a.h"\n')
        self.assert_fault(self.layering(), 'src/shim/opencl/a.c:2: shim/opencl must not include shim/cuda/a.h')

    def test_one_header_as_a_door(self):
        self.write('src/integration/mqtt/a.c', '#include "daemon/service.h"\n')
        self.assert_clean(self.layering())
        self.write('src/integration/mqtt/a.c', '#include "daemon/store.h"\n')
        self.assert_fault(self.layering(), 'src/integration/mqtt/a.c:1:')

    def test_include_names_its_folder(self):
        self.write('src/base/a.c', '#include "err.h"\n')
        self.assert_fault(self.layering(), 'src/base/a.c:1: include "err.h" does not name its folder')

    def test_library_of_another(self):
        self.write('src/gate/a.c', '#include <jansson.h>\n')
        self.write('src/policy/a.c', '#include <pthread.h>\n')
        self.assert_fault(self.layering(), 'src/gate/a.c:1: gate must do without <jansson.h>',
                          'src/policy/a.c:1: policy must do without <pthread.h>')

    def test_folder_without_a_rule(self):
        self.write('src/surprise/a.c', '\n')
        self.assert_fault(self.layering(), 'src/surprise/a.c:1: no rule')


class ForbiddenCalls(Tree):
    def test_each_in_text(self):
        calls = ['exit(1)', 'abort()', 'assert(0)', 'printf("x")', 'puts("x")', 'signal(2, 0)', 'umask(0)',
                 'setenv("A", "b", 1)', 'system("x")', 'sleep(1)', 'raise(2)', 'pthread_once(0, 0)']
        for n, folder in enumerate(['base', 'board', 'gate', 'admit', 'shim/opencl']):
            self.write(f'src/{folder}/a.c', ''.join(f'void f{n}_{i}(void) {{ {c}; }}\n' for i, c in enumerate(calls)))
            result = self.layering()
            self.assert_fault(result, *(f'src/{folder}/a.c:{i + 1}: {folder} (tenant) must not call {c.split("(")[0]}()'
                                        for i, c in enumerate(calls)))

    def test_elsewhere_and_lookalikes(self):
        self.write('src/cli/a.c', 'void f(void) { printf("x"); exit(1); }\n')
        self.write('src/gate/a.c', '/* exit(1) */ // abort()\nconst char *s = "system(1)";\n_Static_assert(1, "");\n'
                   'void f(struct x *x) { x->signal(1); x->ops.exit(2); pen_exit(3); snprintf(0, 0, ""); }\n')
        self.assert_clean(self.layering())

    def test_through_a_macro(self):
        self.write('src/gate/a.c', 'void abort(void);\n#define LEAVE abort\nvoid f(void) { LEAVE(); }\n')
        self.compile('src/gate/a.c')
        self.assert_fault(self.layering_objects(), 'gate (tenant) must not call abort()')


class Calls(Tree):
    def test_own_declaration_instead_of_include(self):
        self.write('src/gate/g.c', 'int pen_gate_x(void) { return 1; }\n')
        self.write('src/board/b.c', 'int pen_gate_x(void);\n\nint f(void) { return pen_gate_x(); }\n')
        self.compile('src/gate/g.c', 'src/board/b.c')
        self.assert_clean(self.layering())
        self.assert_fault(self.layering_objects(), 'src/board/b.c:1: board must not call pen_gate_x() of gate')

    def test_downwards(self):
        self.write('src/board/b.c', 'int pen_board_x(void) { return 1; }\n')
        self.write('src/gate/g.c', 'int pen_board_x(void);\nint f(void) { return pen_board_x(); }\n')
        self.compile('src/gate/g.c', 'src/board/b.c')
        self.assert_clean(self.layering_objects())

    def test_pure_has_no_clock_and_no_state(self):
        self.write('src/policy/p.c', '#include <time.h>\nstatic int calls;\nstatic const char *const names[] = { "a", "b" };\n'
                   'long f(int i) { return time(0) + ++calls + names[i][0]; }\n')
        self.compile('src/policy/p.c')
        self.assert_fault(self.layering_objects(), 'src/policy/p.c:4: policy (pure) must not call time()',
                          'src/policy/p.c:2: policy (pure) must not keep state: calls')
        self.assertNotIn('state: names', self.layering_objects()[1])


class Names(Tree):
    def test_paths_that_a_clone_does_not_have(self):
        def tracked(text):
            self.write('docs/a.md', text)
            run('git', 'init', '-q', cwd=self.dir)
            run('git', 'add', 'docs/a.md', cwd=self.dir)
            return self.layering()
        self.assert_fault(tracked('fine\nsee .' + './shared/x\n'), 'docs/a.md:2: names')
        self.assert_fault(tracked('see /wor' + 'k/main\n'), 'docs/a.md:1: names')
        self.assert_fault(tracked('see .lib' + 'rary\n'), 'docs/a.md:1: names')
        self.assert_clean(tracked('a shared/ folder, homework/1, obj.library\n'))


class Glibc(Tree):
    def shim(self, text, exports, *flags, cc=CC, name='a.so'):
        self.write('a.c', text)
        names = ''.join(f'\t\t{name};\n' for name in exports.split())
        self.write('exports.txt', f'/* f, g; */\n{{\n\tglobal:\n{names}\tlocal:\n\t\t*;\n}};\n')
        code, out = run(cc, '-w', '-shared', '-fPIC', 'a.c', '-o', name, *flags, cwd=self.dir)
        self.assertEqual(code, 0, out)
        return run(os.path.join(TOOLS, 'check-glibc.py'), '--exports', os.path.join(self.dir, 'exports.txt'),
                   os.path.join(self.dir, name))

    def test_good(self):
        self.assert_clean(self.shim('#include <unistd.h>\nint f(void) { return getpid(); }\n', 'f'))

    def test_exports(self):
        self.assert_fault(self.shim('int f; int g;\n', 'f'), 'a.so:0: exports g')
        self.assert_fault(self.shim('int f;\n', 'f h'), 'a.so:0: does not export h')
        self.assert_clean(self.shim('int cl_a; int cl_b;\n', 'cl_*'))

    NEW = 'int gettid(void);\nint f(void) { return gettid(); }\n'

    def test_new_symbol(self):
        self.assert_fault(self.shim(self.NEW, 'f'), 'a.so:0: gettid needs GLIBC_2.30')

    @unittest.skipUnless(shutil.which('aarch64-linux-gnu-gcc'), 'no cross compiler')
    def test_new_symbol_of_another_architecture(self):
        self.assert_fault(self.shim(self.NEW, 'f', cc='aarch64-linux-gnu-gcc'), 'a.so:0: gettid needs GLIBC_2.30')
        self.assert_clean(self.shim('int getpid(void);\nint f(void) { return getpid(); }\n', 'f', cc='aarch64-linux-gnu-gcc'))

    def test_other_library(self):
        self.assert_fault(self.shim('double sqrt(double);\ndouble f(double x) { return sqrt(x); }\n', 'f',
                                    '-fno-builtin', '-Wl,--no-as-needed', '-lm'), 'a.so:0: needs libm.so.6')

    def test_layer_keeps_its_loader(self):
        self.write('l.c', '')
        run(CC, '-shared', '-fPIC', 'l.c', '-o', 'libOpenCL.so.1', '-Wl,-soname,libOpenCL.so.1', cwd=self.dir)
        layer, needs = 'libpenstock-opencl.so', ['-Wl,--no-as-needed', os.path.join(self.dir, 'libOpenCL.so.1')]
        self.assert_fault(self.shim('int f;\n', 'f', name=layer), 'must need libOpenCL.so.1')
        self.assert_fault(self.shim('int f;\n', 'f', *needs, name=layer), 'must need libOpenCL.so.1')
        self.assert_clean(self.shim('int f;\n', 'f', '-Wl,-z,nodelete', *needs, name=layer))
        self.assert_fault(self.shim('int f;\n', 'f', *needs), 'needs libOpenCL.so.1')

    def test_build_directory(self):
        """Every library below src is looked at, also one that is no shim; and none at all is a fault."""
        check = os.path.join(TOOLS, 'check-glibc.py')
        self.assert_fault(run(check, self.dir), '0 libraries')
        self.shim(self.NEW, 'f')
        os.makedirs(os.path.join(self.dir, 'src/unlisted'))
        os.rename(os.path.join(self.dir, 'a.so'), os.path.join(self.dir, 'src/unlisted/a.so.1'))
        self.assert_fault(run(check, self.dir), 'src/unlisted/a.so.1:0: gettid needs', 'src/unlisted/a.so.1:0: no list of exports')

    def test_not_a_library(self):
        self.write('a.so', 'nonsense')
        self.assert_fault(run(os.path.join(TOOLS, 'check-glibc.py'), os.path.join(self.dir, 'a.so')), 'cannot be read')


class Headers(Tree):
    def headers(self):
        return run(os.path.join(TOOLS, 'lint-headers.sh'), self.dir)

    def test_good(self):
        self.write('include/penstock/a.h', '#include <stdint.h>\nuint32_t f(void);\n')
        self.write('src/base/a.h', '#include "penstock/a.h"\nstatic inline uint32_t g(void) { return f(); }\n')
        self.assert_clean(self.headers())

    def test_needs_another(self):
        self.write('include/penstock/a.h', 'uint32_t f(void);\n')
        self.assert_fault(self.headers(), 'include/penstock/a.h:1: does not compile alone')

    def test_gnu_extension(self):
        self.write('include/penstock/a.h', '#define F(x) x\nstatic inline int f(int x) { return ({ x; }); }\n')
        self.assert_fault(self.headers(), 'include/penstock/a.h:1:')

    def test_public_includes_internal(self):
        self.write('src/base/b.h', '\n')
        self.write('include/penstock/a.h', '#include "../../src/base/b.h"\n')
        self.assert_fault(self.headers(), 'a public header includes public headers only')


class Deps(unittest.TestCase):
    """tools/deps.sh with lists that name what is there, and what no release has; never installs anything."""

    def deps(self, text, *args):
        with tempfile.NamedTemporaryFile('w', suffix='.txt') as f:
            f.write(text)
            f.flush()
            return run(os.path.join(TOOLS, 'deps.sh'), *args, env={**os.environ, 'PEN_PACKAGES': f.name})

    def test_list(self):
        code, out = self.deps('build a why\ntest? b|c why\ntest a again\nlint d why\n', '--list', 'build', 'test')
        self.assertEqual((code, out.split()), (0, ['a', 'b|c']))

    def test_unknown_group(self):
        self.assertEqual(self.deps('build a why\n', 'nonsense')[0], 2)

    @unittest.skipUnless(shutil.which('dpkg-query'), 'not a Debian system')
    def test_nothing_to_do(self):
        self.assertEqual(self.deps('build nonesuch-xyz|dpkg why\n', 'build'), (0, ''))


class RunTests(Tree):
    """tools/run-tests.py on a project of shell tests."""

    def project(self, **tests):
        lines = [f"test('{name}', sh, args: ['-c', '''{script}'''])" for name, script in tests.items()]
        self.write('meson.build', "project('t')\nsh = find_program('sh')\n" + '\n'.join(lines) + '\n')
        code, out = run('meson', 'setup', 'b', cwd=self.dir)
        self.assertEqual(code, 0, out)
        return lambda *a: run(os.path.join(TOOLS, 'run-tests.py'), '-C', os.path.join(self.dir, 'b'), *a)

    def last_line(self, out):
        return out.rstrip('\n').rpartition('\n')[2]

    def test_counts_and_reasons(self):
        code, out = self.project(good='true', bad='echo boo; exit 3', none='echo "skipped: no device"; exit 77')()
        self.assertEqual((code, self.last_line(out)), (1, '1 passed, 1 failed, 1 skipped'))
        self.assertIn('boo', out)
        self.assertIn('none: skipped: no device', out)

    def test_all_good(self):
        code, out = self.project(good='true')()
        self.assertEqual((code, self.last_line(out)), (0, '1 passed, 0 failed, 0 skipped'))

    def test_no_tests_is_a_failure(self):
        code, out = self.project(good='true')('--', 'nosuch')
        self.assertEqual((code, self.last_line(out)), (1, '0 passed, 1 failed, 0 skipped'))

    def test_left_running(self):
        code, out = self.project(good='setsid sleep 300 >/dev/null 2>&1 &')()
        self.assertEqual((code, self.last_line(out)), (1, '1 passed, 1 failed, 0 skipped'))
        self.assertIn('sleep 300', out)

    def test_out_of_time(self):
        code, out = self.project(slow='exec sleep 300')('--limit', '2')
        self.assertEqual(code, 1)
        self.assertIn('out of time after 2 s', out)


if __name__ == '__main__':
    sys.exit(0 if unittest.main(exit=False, verbosity=2).result.wasSuccessful() else 1)
