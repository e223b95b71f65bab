# SPDX-License-Identifier: Apache-2.0
"""The kubelet's device plugin against a stand-in of the kubelet: registration, lists, Allocate."""
import os
import sys

import fake
import kubelet_node
from kubelet_node import R, Node, tenant_dir


def test_register_list_allocate():
    """From a kubelet that appears to a process under contract."""
    with Node() as n:
        n.kubelet.start()
        p = n.kubelet.wait_list(R)
        assert p.devices() == {f'g{g}-s{s}': True for g in (0, 1) for s in range(4)}, p.devices()
        assert p.options.get_preferred_allocation_available and not p.options.pre_start_required
        a = p.allocate(['g0-s2'])
        assert a.envs['PENSTOCK_SLOT_VGPU_1G'] == 'g0-s2', a
        assert [(m.container_path, m.read_only) for m in a.mounts] == [('/run/penstock/tenant', True)], a
        assert not a.cdi_devices and not a.devices
        c = fake.Client(tenant_dir(a)).attach('test:p/one#0')
        t = n.lease_of('g0-s2')
        assert t['tenant'].startswith('vgpu-1g-g0-s2-') and t['state'] == 'active', t
        v = n.daemon.tenant(t['tenant'])
        assert v['owner'] == 'kubelet' and v['contract']['memory'] == '1G' and v['contract']['compute'] == '25%', v
        assert v['contract']['device'] == 'test:p/one#0' and v['state'] == 'active'
        assert c.copy(32, '<Q') == 4 << 30
        c.close()


if __name__ == '__main__':
    fake.run(sys.modules[__name__])
