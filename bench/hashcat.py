# SPDX-License-Identifier: Apache-2.0
"""hashcat as a neighbour that cannot be cut: it looks for a password that does not exist and never ends by itself."""
import os
import re
import subprocess
import time

from harness import NS, Skip, now, session_cpu_ns

NEVER = 'f' * 32  # no password of the mask below has this MD5 within a life-time
MASK = '?a?a?a?a?a?a?a?a'


class Hashcat:
    def __init__(self, bench, device, name, contract=None):
        self.bench, self.device, self.name = bench, device, name
        if not any(os.access(os.path.join(d, 'hashcat'), os.X_OK) for d in os.environ.get('PATH', '').split(':')):
            raise Skip('hashcat is not installed')
        hashes = os.path.join(bench.tmp, 'hash.txt')
        with open(hashes, 'w', encoding='ascii') as f:
            f.write(NEVER + '\n')
        bench.serial += 1
        self.path = os.path.join(bench.tmp, f'{name}-{bench.serial}.log')
        self.log = open(self.path, 'w', encoding='utf-8')
        # its kernels are compiled below HOME at first use and read from there afterwards
        argv = ['hashcat', '-m', '0', '-a', '3', '--force', '--potfile-disable', '--restore-disable',
                '--logfile-disable', '--session', f'bench{os.getpid()}x{bench.serial}', '--status', '--status-timer=1',
                '--machine-readable', hashes, MASK]
        argv = [*device.prefix, *bench.wrap(contract, argv, name)]
        self.p = bench.start(argv, bench.env(device), cwd=bench.tmp, stdin=subprocess.DEVNULL,
                             stdout=self.log, stderr=subprocess.STDOUT)

    def statuses(self):
        """(kernel time in ms as hashcat's own profiling saw it, candidates tried) of each status line."""
        with open(self.path, encoding='utf-8', errors='replace') as f:
            return [(float(m.group(1)), int(m.group(2))) for m in
                    re.finditer(r'EXEC_RUNTIME\s+([0-9.]+).*?PROGRESS\s+([0-9]+)', f.read())]

    def wait_busy(self, seconds=120):
        """Until it has worked through candidates in two status lines: start-up and tuning are over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done = [p for _, p in self.statuses()]
            if len(done) >= 3 and done[-1] > done[-3] > 0:
                return
            if self.p.poll() is not None:
                break
            time.sleep(0.1)
        with open(self.path, encoding='utf-8', errors='replace') as f:
            raise RuntimeError(f'{self.name} did not start working: {f.read()[-1500:]}')

    def cpu_ns(self):
        """Its work: CPU time of its session, which on a CPU device is the time of its kernels and little else."""
        return session_cpu_ns(self.p.pid)

    def rate(self, seconds):
        """CPU seconds a second over the next @seconds."""
        t0, c0 = now(), self.cpu_ns()
        time.sleep(seconds)
        return (self.cpu_ns() - c0) / (now() - t0)

    def stop(self):
        self.bench.stop(self.p)
        self.log.close()


def warm(bench, device, seconds=10):
    """Lets hashcat compile its kernels once. Return: R, the length in ns of one of its commands when it is alone.

    hashcat lengthens its commands during the first seconds, so only the last readings count; of those the shortest,
    because other load on the machine can only lengthen a command, and a smaller R is the harder goal.
    """
    h = Hashcat(bench, device, 'hashcat-warm')
    try:
        h.wait_busy(300)
        time.sleep(seconds)
        return min(ms for ms, _ in h.statuses()[-4:]) / 1000 * NS
    finally:
        h.stop()
