#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""/metrics as its readers read it: promtool judges the text, a real Prometheus scrapes it. Both are of Debian's prometheus package."""
import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request

from fake import Client, Daemon, Unix, run, wait_for

OPEN = 'application/openmetrics-text'


def fetch(node, accept, packed=None):
    """Type and text; the number of bytes on the wire is added to `packed`."""
    c = Unix(node.sock)
    c.request('GET', '/metrics', headers={'Accept': accept, 'Accept-Encoding': 'gzip' if packed is not None else 'identity'})
    r = c.getresponse()
    data = r.read()
    c.close()
    assert (r.getheader('Content-Encoding') == 'gzip') == (packed is not None), r.headers
    if packed is not None:
        packed.append(len(data))
        data = gzip.decompress(data)
    return r.getheader('Content-Type'), data.decode()


def with_tenants(node, n):
    clients = []
    for i in range(n):
        assert node.create(f't{i}', memory='..64M', compute='..50%')[0] == 201
        c = Client(node.tenant(f't{i}')['dir']).attach()
        clients.append(c)
    return clients


def test_promtool():
    with Daemon() as node:
        clients = with_tenants(node, 3)
        kind, text = fetch(node, '*/*')
        assert kind.startswith('text/plain; version=0.0.4'), kind
        r = subprocess.run(['promtool', 'check', 'metrics'], input=text, capture_output=True, text=True, check=False)
        assert r.returncode == 0 and not r.stderr and len(clients) == 3, r


def test_openmetrics():
    """Families without _total, units named, one block for each, and the end marked."""
    with Daemon() as node:
        clients = with_tenants(node, 2)
        kind, text = fetch(node, OPEN + ';version=1.0.0,text/plain;q=0.5')
        assert kind.startswith(OPEN + '; version=1.0.0'), kind
        assert text.endswith('# EOF\n') and '_total ' not in ''.join(re.findall(r'^# .*\n', text, re.M)), text
        assert '# UNIT penstock_memory_used_bytes bytes\n' in text, text
        families = re.findall(r'^# TYPE (\S+) ', text, re.M)
        assert len(families) == len(set(families)), families
        current = None
        for line in text.splitlines():
            if line.startswith('# TYPE'):
                current = line.split()[2]
            elif not line.startswith('#'):
                assert re.match(rf'{current}(_total|_sum|_count|_bucket)?[{{ ]', line), (current, line)
        plain = fetch(node, '*/*')[1]
        samples = [line for line in plain.splitlines() if line and line[0] != '#']
        assert len([line for line in text.splitlines() if line[0] != '#']) == len(samples) and len(clients) == 2


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def test_a_real_prometheus():
    port, own = free_port(), free_port()
    tmp = tempfile.mkdtemp(prefix='pen-prom-')
    with open(tmp + '/prometheus.yml', 'w', encoding='utf-8') as f:
        f.write(f'global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\nscrape_configs:\n'
                f'- job_name: penstock\n  honor_labels: true\n  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]\n')

    def query(expr):
        try:
            with urllib.request.urlopen(f'http://127.0.0.1:{own}/api/v1/query?query={expr}', timeout=5) as r:
                return json.load(r)['data']['result']
        except OSError:
            return []
    config = f'http:\n  listen: 127.0.0.1:{port}\n'
    with Daemon(config=config) as node:
        node.stop()
        node.args = ['--http', f'127.0.0.1:{port}']
        node.start()
        clients = with_tenants(node, 2)
        log = open(tmp + '/log', 'wb')
        prom = subprocess.Popen(['prometheus', f'--config.file={tmp}/prometheus.yml', f'--storage.tsdb.path={tmp}/data',
                                 f'--web.listen-address=127.0.0.1:{own}'], stdout=log, stderr=log)
        try:
            wait_for(lambda: prom.poll() is not None or len(query('penstock_memory_limit_bytes')) == 2, 'Prometheus to have scraped')
            got = {r['metric']['tenant']: float(r['value'][1]) for r in query('penstock_memory_limit_bytes')}
            assert got == {'t0': 64 << 20, 't1': 64 << 20}, got
            assert query('up')[0]['value'][1] == '1' and len(clients) == 2
        finally:
            prom.kill()
            prom.wait()
            log.close()
            shutil.rmtree(tmp)


HERE = os.path.dirname(os.path.abspath(__file__))
SHIPPED = os.path.join(HERE, '..', '..', 'packaging', 'prometheus')


def test_what_is_shipped():
    """Rules alert when they should; rules and dashboard speak of metrics that there are."""
    for args in (['check', 'rules', 'penstock.rules.yml'], ['test', 'rules', 'rules_test.yml'],
                 ['check', 'config', '--syntax-only', 'prometheus.yml']):
        r = subprocess.run(['promtool', *args], cwd=SHIPPED, capture_output=True, text=True, check=False)
        assert r.returncode == 0, (args, r)
    with Daemon(config='kubernetes: {enabled: true, directory: /nowhere, pods: none, profiles: [{name: p, memory: 1G}]}\n') as node:
        clients = with_tenants(node, 1)
        text = fetch(node, '*/*')[1]
        assert clients
        if 'absent' in node.get('/v1/integrations')['integrations']['kubelet']:
            text += '# TYPE penstock_kubelet_registered gauge\n'
    there = set(re.findall(r'^# TYPE (\S+) ', text, re.M))
    there |= {name + end for name in there for end in ('_sum', '_count')}
    for name in ('penstock.rules.yml', 'grafana-dashboard.json'):
        with open(os.path.join(SHIPPED, name), encoding='utf-8') as f:
            spoken = set(re.findall(r'\bpenstock_[a-z_]+\b', f.read()))
        assert len(spoken) > 5 and spoken <= there, (name, spoken - there)


def test_textfile():
    """For a box that nobody scrapes: written whole, again and again, and a place that cannot be written is told once."""
    with tempfile.TemporaryDirectory() as tmp:
        path = tmp + '/penstock.prom'
        with Daemon(config=f'metrics:\n  textfile: {path}\n  interval: 1s\n') as node:
            wait_for(lambda: os.path.exists(path), 'the file')
            first = os.stat(path).st_ino
            wait_for(lambda: os.stat(path).st_ino != first, 'the file to be written again')
            with open(path, encoding='utf-8') as f:
                text = f.read()
            r = subprocess.run(['promtool', 'check', 'metrics'], input=text, capture_output=True, text=True, check=False)
            assert r.returncode == 0 and 'penstock_ticks_total' in text, (r, text)
            since = node.last_event()
            shutil.rmtree(tmp)
            alert = node.wait_event('alert', since)
            assert path in alert['text'], alert
            os.mkdir(tmp)
            wait_for(lambda: os.path.exists(path), 'the file to be back')
            assert len([e for e in node.get(f'/v1/events?since={since}&limit=99')['events'] if e['kind'] == 'alert']) == 1


def test_encodings():
    """What is not asked for, or is refused, is not packed."""
    with Daemon() as node:
        clients = with_tenants(node, 4)
        for takes, packed in (('gzip', True), ('br, gzip ;q=0.5', True), ('gzip;q=1.0, *;q=0', True), ('gzip;q=0', False), ('identity, gzip; q=0.0', False),
                              ('identity', False), ('', False)):
            c = Unix(node.sock)
            c.request('GET', '/metrics', headers={'Accept-Encoding': takes})
            r = c.getresponse()
            data = r.read()
            assert (r.getheader('Content-Encoding') == 'gzip') == packed == (data[:2] == b'\x1f\x8b'), (takes, r.headers)
            c.close()
        assert len(clients) == 4


def test_size():
    """64 tenants in 50 KB, as a scraper takes them; the same text as unpacked."""
    with Daemon() as node:
        clients = with_tenants(node, 64)
        text = fetch(node, '*/*')[1]
        assert text.count('penstock_memory_used_bytes{') == len(clients) == 64
        packed = []
        again = fetch(node, '*/*', packed)[1]
        assert again.count('penstock_memory_used_bytes{') == 64 and packed[0] < 50_000, packed
        print(f'64 tenants: {len(text)} bytes, {packed[0]} on the wire')


if __name__ == '__main__':
    if not shutil.which('promtool') or not shutil.which('prometheus'):
        print('skipped: prometheus is not installed')
        sys.exit(77)
    run(sys.modules[__name__])
