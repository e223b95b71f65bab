#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real programs, unmodified, under `penstock run` on PoCL: test_programs.py BUILD WHICH.

ffmpeg   links the loader; frames are images: the same MD5 with and without Penstock
hashcat  opens the loader by itself: finds the password under a compute limit, in its memory limit
clpeak   contexts by type; sizes its buffers by what it is told, so it stays inside the limit
opencv   opens the loader by itself, reads by blocking maps: the network runs on the device (commands are counted) and
         gives what the CPU gives
Skipped (77) where the program or PoCL is missing.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

POCL = '/etc/OpenCL/vendors/pocl.icd'
PYTHON = '/usr/bin/python3'     # the distribution's, which has cv2

MODEL = '''
import numpy as np, onnx
from onnx import helper as h, TensorProto as T, numpy_helper as nh
r = np.random.default_rng(1); d = [768, 256, 10]; ini, nod, x = [], [], "x"
for i in range(2):
    ini += [nh.from_array((r.standard_normal((d[i+1], d[i]))*.02).astype("f"), f"w{i}"), nh.from_array(np.zeros(d[i+1], "f"), f"b{i}")]
    nod.append(h.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"g{i}"], transB=1)); x = f"g{i}"
    if i < 1: nod.append(h.make_node("Relu", [x], [f"r{i}"])); x = f"r{i}"
g = h.make_graph(nod, "mlp", [h.make_tensor_value_info("x", T.FLOAT, [1, 768])], [h.make_tensor_value_info(x, T.FLOAT, [1, 10])], ini)
onnx.save(h.make_model(g, opset_imports=[h.make_opsetid("", 11)], ir_version=6), "mlp.onnx")
'''
NETWORK = '''
import cv2, numpy as np
n = cv2.dnn.readNetFromONNX("mlp.onnx"); x = np.random.default_rng(2).standard_normal((1, 768)).astype("f")
n.setInput(x); ref = n.forward().copy()
n.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV); n.setPreferableTarget(cv2.dnn.DNN_TARGET_OPENCL); cv2.ocl.setUseOpenCL(True)
assert cv2.ocl.useOpenCL()
for i in range(20): n.setInput(x); y = n.forward()
print("difference", float(np.abs(y-ref).max()/np.abs(ref).max()))
'''


def skip(why):
    print(f'skipped: {why}')
    sys.exit(77)


class Place:
    """A folder of its own for one program, with its own private daemon."""

    def __init__(self, build, folder):
        self.penstock = os.path.join(build, 'src/cli/penstock')
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(('PENSTOCK', 'OPENCL_LAYERS'))}
        self.env.update(OCL_ICD_VENDORS=POCL, XDG_RUNTIME_DIR=folder, HOME=folder, LC_ALL='C',
                        POCL_CACHE_DIR=os.path.join(build, 'tests/pocl-cache'))

    def bare(self, args, **env):
        return subprocess.run(args, cwd=self.folder, env={**self.env, **env}, capture_output=True, text=True, errors='replace',
                              stdin=subprocess.DEVNULL, timeout=240, check=False)

    def run(self, options, args, **env):
        r = self.bare([self.penstock, 'run', *options, '--', *args], **env)
        print('$ penstock run', *options, '--', *args)
        print(r.stdout[-1500:], r.stderr[-1500:], sep='\n')
        return r


def summary(r):
    """(peak bytes, commands) of the closing line."""
    m = re.search(r'used (\d+) ([KMGT]?)i?B of memory.*?, (\d+) commands', r.stderr)
    assert m, 'no closing line'
    return float(m.group(1)) * 1024 ** ' KMGT'.index(m.group(2) or ' '), int(m.group(3))


def need(*programs):
    for p in programs:
        if not shutil.which(p):
            skip(f'{p} is not installed')


def ffmpeg(place):
    need('ffmpeg')
    args = ['ffmpeg', '-v', 'error', '-init_hw_device', 'opencl=ocl:0.0', '-filter_hw_device', 'ocl', '-f', 'lavfi', '-i',
            'testsrc2=size=640x360:rate=25:duration=2', '-vf',
            'format=yuv420p,hwupload,unsharp_opencl=lx=5:ly=5,hwdownload,format=yuv420p', '-f', 'md5', '-']
    bare = place.bare(args)
    if bare.returncode:
        skip('this ffmpeg has no OpenCL filters')
    for options in ([], ['--memory', '64M'], ['--compute', '..50%', '--class', 'besteffort']):
        r = place.run(options, args)
        assert r.returncode == 0 and r.stdout == bare.stdout, f'wanted {bare.stdout}'
        peak, commands = summary(r)
        assert peak > 0, 'frames are images: they must be seen'
        assert commands >= 150, 'three planes of fifty frames'


def hashcat(place):
    need('hashcat')
    with open(os.path.join(place.folder, 'h.txt'), 'w', encoding='utf-8') as f:
        f.write('607b2ae1c6c8d864c26401fd57ff47d4\n')
    r = place.run(['--memory', '1G', '--compute', '..30%'],
                  ['hashcat', '-m', '0', '-a', '3', '--force', '--potfile-path', './p.pot', '-w', '1', 'h.txt', '?l?l?l?l?l'])
    assert r.returncode == 0 and '607b2ae1c6c8d864c26401fd57ff47d4:zzyqk' in r.stdout
    peak, commands = summary(r)
    assert 0 < peak <= 1 << 30 and commands > 500


def clpeak(place):
    need('clpeak')
    r = place.run(['--memory', '128M'], ['clpeak', '--global-bandwidth'])
    assert r.returncode == 0 and re.search(r'float16\s*: [\d.]+', r.stdout)
    peak, _commands = summary(r)
    assert 0 < peak <= 128 << 20
    r = place.run([], ['clpeak', '--kernel-latency'])
    assert r.returncode == 0 and re.search(r'Kernel launch latency : [\d.]+ us', r.stdout)
    assert summary(r)[1] >= 20000


def opencv(place):
    if not os.path.exists(PYTHON) or place.bare([PYTHON, '-c', 'import cv2, onnx']).returncode:
        skip('python3-opencv or python3-onnx is not installed')
    made = place.bare([PYTHON, '-c', MODEL])
    assert made.returncode == 0, made.stderr
    r = place.run(['--memory', '256M'], [PYTHON, '-c', NETWORK], OPENCV_OPENCL_DEVICE=':CPU:0',
                  OPENCV_DNN_OPENCL_ALLOW_ALL_DEVICES='1')
    m = re.search(r'difference ([\d.e-]+)', r.stdout)
    assert r.returncode == 0 and m and float(m.group(1)) < 1e-4
    # OpenCV falls back to the CPU without a word: only our count proves where it ran.
    assert summary(r)[1] >= 20 * 3


def main():
    build, which = os.path.realpath(sys.argv[1]), sys.argv[2]
    if not os.path.exists(POCL):
        skip('PoCL is not installed')
    with tempfile.TemporaryDirectory(prefix='penstock-') as folder:
        {'ffmpeg': ffmpeg, 'hashcat': hashcat, 'clpeak': clpeak, 'opencv': opencv}[which](Place(build, folder))
    return 0


if __name__ == '__main__':
    sys.exit(main())
