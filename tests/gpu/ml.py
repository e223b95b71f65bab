# SPDX-License-Identifier: Apache-2.0
"""PyTorch as a tenant: ml.py check|infer|train [--seconds N] [--memory BYTES]. Random weights, random input, nothing
downloaded.

check: a sum that must be the same under a contract, the memory that is shown, and what happens when it is used up.
infer: one image at a time through a residual net, with pauses: latency of each request, in ms. train: steps a second
of the same net. One line of JSON.
"""
import argparse
import json
import time

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(n, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU(),
                                  nn.Conv2d(n, n, 3, padding=1), nn.BatchNorm2d(n))

    def forward(self, x):
        return torch.relu(x + self.body(x))


def net():
    layers, width = [nn.Conv2d(3, 64, 7, stride=4, padding=3)], 64
    for wider in (64, 128, 256, 512):
        if wider != width:
            layers.append(nn.Conv2d(width, wider, 1, stride=2))
        layers += [Block(wider), Block(wider)]
        width = wider
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)).cuda()


def check(a):
    torch.manual_seed(1)
    x = torch.randint(0, 8, (1024, 1024), device='cuda').double()   # whole numbers: exact in any order
    found = {'sum': float((x @ x).sum()), 'total': torch.cuda.mem_get_info()[1]}
    held = []
    try:
        while a.memory and len(held) * 256 * 2**20 <= 2 * a.memory:
            held.append(torch.empty(256 * 2**20, dtype=torch.uint8, device='cuda'))
        found['refused'] = False
    except torch.cuda.OutOfMemoryError as why:
        found.update(refused=True, error=f'after {len(held) * 256} MiB: {str(why).splitlines()[0][:160]}')
    return found


@torch.inference_mode()
def infer(a):
    model, x = net().eval(), torch.randn(1, 3, 224, 224, device='cuda')
    latency, stop = [], time.monotonic() + a.seconds
    first = time.monotonic()
    model(x).cpu()
    first = time.monotonic() - first
    for _ in range(30):
        model(x).cpu()
    print('READY', flush=True)
    while time.monotonic() < stop:
        t = time.perf_counter()
        model(x).cpu()
        latency.append(1000 * (time.perf_counter() - t))
        time.sleep(0.005)
    return {'first_ms': 1000 * first, 'latency_ms': [round(v, 4) for v in latency]}


def train(a):
    model, x, y = net(), torch.randn(64, 3, 224, 224, device='cuda'), torch.randint(0, 1000, (64,), device='cuda')
    optimiser = torch.optim.SGD(model.parameters(), lr=0.001)
    done, stop, begin = 0, time.monotonic() + a.seconds, None
    while time.monotonic() < stop:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
        torch.cuda.synchronize()
        done += 1
        if done == 5:
            print('READY', flush=True)
            begin = time.monotonic()
    return {'steps': done, 'rate': (done - 5) / max(1e-9, time.monotonic() - (begin or stop)) if done > 5 else 0}


def main():
    p = argparse.ArgumentParser()
    p.add_argument('what', choices=('check', 'infer', 'train'))
    p.add_argument('--seconds', type=float, default=5)
    p.add_argument('--memory', type=int, default=0)
    a = p.parse_args()
    torch.backends.cudnn.benchmark = False
    print(json.dumps({'check': check, 'infer': infer, 'train': train}[a.what](a)))


if __name__ == '__main__':
    main()
