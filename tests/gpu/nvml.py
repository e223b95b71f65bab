# SPDX-License-Identifier: Apache-2.0
"""What NVML says, by ctypes: identity, memory, bandwidth (GPM), MIG profiles. Reads only."""
import ctypes as c

DRAM_BW_UTIL, SM_UTIL, PCIE_TX, PCIE_RX = 10, 2, 20, 21   # GPM metrics
PROFILES = 32   # more than any version numbers


class Missing(Exception):
    """The library, the card or the driver does not have it."""


class Memory(c.Structure):
    _fields_ = [('total', c.c_ulonglong), ('free', c.c_ulonglong), ('used', c.c_ulonglong)]


class GpmMetric(c.Structure):
    _fields_ = [('id', c.c_uint), ('result', c.c_int), ('value', c.c_double), ('short', c.c_char_p),
                ('long', c.c_char_p),
                ('unit', c.c_char_p)]


class GpmGet(c.Structure):   # the array is longer in newer versions; only `count` entries are looked at
    _fields_ = [('version', c.c_uint), ('count', c.c_uint), ('first', c.c_void_p), ('second', c.c_void_p),
                ('metrics', GpmMetric * 512)]


class GpmSupport(c.Structure):
    _fields_ = [('version', c.c_uint), ('supported', c.c_uint)]


class Profile(c.Structure):   # nvmlGpuInstanceProfileInfo_v2_t
    _fields_ = [('version', c.c_uint), ('id', c.c_uint), ('p2p', c.c_uint), ('slices', c.c_uint),
                ('instances', c.c_uint),
                ('multiprocessors', c.c_uint), ('copy_engines', c.c_uint), ('decoders', c.c_uint),
                ('encoders', c.c_uint),
                ('jpeg', c.c_uint), ('ofa', c.c_uint), ('memory_mib', c.c_ulonglong), ('name', c.c_char * 96)]


class Placement(c.Structure):
    _fields_ = [('start', c.c_uint), ('size', c.c_uint)]


class Nvml:
    """The library that LD_LIBRARY_PATH leads to, or the one at @path; the first device."""

    def __init__(self, path='libnvidia-ml.so.1'):
        try:
            self.lib = c.CDLL(path)
        except OSError as why:
            raise Missing(str(why)) from why
        self.call('nvmlInit_v2')
        self.device = c.c_void_p()
        self.call('nvmlDeviceGetHandleByIndex_v2', 0, c.byref(self.device))

    def call(self, name, *args):
        f = getattr(self.lib, name, None)
        if f is None:
            raise Missing(f'the library has no {name}')
        r = f(*args)
        if r:
            raise Missing(f'{name} returned {r}')

    def text(self, name, *first):
        buffer = c.create_string_buffer(96)
        self.call(name, *first, buffer, 96)
        return buffer.value.decode(errors='replace')

    def name(self):
        return self.text('nvmlDeviceGetName', self.device)

    def driver(self):
        return self.text('nvmlSystemGetDriverVersion')

    def memory(self):
        m = Memory()
        self.call('nvmlDeviceGetMemoryInfo', self.device, c.byref(m))
        return m

    def compute_mode(self):
        n = c.c_uint()
        self.call('nvmlDeviceGetComputeMode', self.device, c.byref(n))
        return {0: 'default', 2: 'prohibited', 3: 'exclusive process'}.get(n.value, str(n.value))

    def mig_mode(self):
        now, pending = c.c_uint(), c.c_uint()
        self.call('nvmlDeviceGetMigMode', self.device, c.byref(now), c.byref(pending))
        return now.value

    def gpm(self, between, metrics):
        """Readings over the time that @between() takes: metric -> value."""
        support = GpmSupport(version=1)
        self.call('nvmlGpmQueryDeviceSupport', self.device, c.byref(support))
        if not support.supported:
            raise Missing('this card has no GPM')
        samples = [c.c_void_p(), c.c_void_p()]
        for s in samples:
            self.call('nvmlGpmSampleAlloc', c.byref(s))
        try:
            self.call('nvmlGpmSampleGet', self.device, samples[0])
            between()
            self.call('nvmlGpmSampleGet', self.device, samples[1])
            get = GpmGet(version=1, count=len(metrics), first=samples[0], second=samples[1])
            for i, m in enumerate(metrics):
                get.metrics[i].id = m
            self.call('nvmlGpmMetricsGet', c.byref(get))
            return {m: get.metrics[i].value for i, m in enumerate(metrics) if get.metrics[i].result == 0}
        finally:
            for s in samples:
                self.lib.nvmlGpmSampleFree(s)

    def mig_profiles(self):
        """Profiles of GPU instances with where they may be placed, as the planner wants them. Changes nothing."""
        found, why = [], Missing('no profile is offered')
        for number in range(PROFILES):
            p = Profile(version=c.sizeof(Profile) | (2 << 24))
            try:
                self.call('nvmlDeviceGetGpuInstanceProfileInfoV', self.device, number, c.byref(p))
            except Missing as reason:
                why = reason
                continue
            row = {k: getattr(p, k) for k, _ in Profile._fields_ if k not in ('version', 'name')}
            row.update(number=number, name=p.name.decode(errors='replace'), placements=self.placements(p.id))
            found.append(row)
        if not found:
            raise why
        return found

    def placements(self, profile):
        n = c.c_uint(0)
        self.lib.nvmlDeviceGetGpuInstancePossiblePlacements_v2(self.device, profile, None, c.byref(n))
        v = (Placement * max(1, n.value))()
        try:
            self.call('nvmlDeviceGetGpuInstancePossiblePlacements_v2', self.device, profile, v, c.byref(n))
        except Missing:
            return []
        return [[p.start, p.size] for p in v[:n.value]]
