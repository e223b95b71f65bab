# SPDX-License-Identifier: Apache-2.0
"""A kubelet for tests, as far as a device plugin sees one, that can be told to behave as badly as real ones do.

Messages are declared here a second time, and not made from the daemon's .proto file: a wrong number there would not be noticed.
Needs Debian's python3-grpcio and python3-protobuf; without them the test is skipped.
"""
import os
import queue
import shutil
import socket
import struct
import sys
import threading
import time
from concurrent import futures

SYSTEM_PYTHON = '/usr/bin/python3'

try:
    import grpc
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    # Another python3 may come first in PATH than the one that the packages are for.
    if os.path.realpath(sys.executable) != os.path.realpath(SYSTEM_PYTHON) and os.path.exists(SYSTEM_PYTHON) and \
            not os.environ.get('PENSTOCK_TEST_PYTHON'):
        os.environ['PENSTOCK_TEST_PYTHON'] = '1'
        os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, *sys.argv])
    print('skipped: python3-grpcio and python3-protobuf are needed')
    sys.exit(77)

BOUND = float(os.environ.get('PENSTOCK_TEST_BOUND', '20'))    # generous: a loaded machine, sanitizers

# message: number, type, name; ...  A type in <> is repeated, {} a map of strings.
SPEC = '''
Empty:
DevicePluginOptions: 1 bool pre_start_required; 2 bool get_preferred_allocation_available
RegisterRequest: 1 string version; 2 string endpoint; 3 string resource_name; 4 DevicePluginOptions options
NUMANode: 1 int64 ID
TopologyInfo: 1 <NUMANode> nodes
Device: 1 string ID; 2 string health; 3 TopologyInfo topology
ListAndWatchResponse: 1 <Device> devices
ContainerPreferredAllocationRequest: 1 <string> available_deviceIDs; 2 <string> must_include_deviceIDs; 3 int32 allocation_size
PreferredAllocationRequest: 1 <ContainerPreferredAllocationRequest> container_requests
ContainerPreferredAllocationResponse: 1 <string> deviceIDs
PreferredAllocationResponse: 1 <ContainerPreferredAllocationResponse> container_responses
ContainerAllocateRequest: 1 <string> devices_ids
AllocateRequest: 1 <ContainerAllocateRequest> container_requests
Mount: 1 string container_path; 2 string host_path; 3 bool read_only
DeviceSpec: 1 string container_path; 2 string host_path; 3 string permissions
CDIDevice: 1 string name
ContainerAllocateResponse: 1 {} envs; 2 <Mount> mounts; 3 <DeviceSpec> devices; 4 {} annotations; 5 <CDIDevice> cdi_devices
AllocateResponse: 1 <ContainerAllocateResponse> container_responses
PreStartContainerRequest: 1 <string> devices_ids
PreStartContainerResponse:
'''


def _messages():
    f = descriptor_pb2.FileDescriptorProto(name='v1beta1.proto', package='v1beta1', syntax='proto3')
    kinds = {'bool': 8, 'string': 9, 'int64': 3, 'int32': 5}
    names = []
    for line in SPEC.strip().splitlines():
        name, _, fields = line.partition(':')
        m = f.message_type.add(name=name)
        names.append(name)
        for field in filter(None, (x.strip() for x in fields.split(';'))):
            number, kind, label = field.split()
            d = m.field.add(name=label, number=int(number), label=3 if kind[0] in '<{' else 1)
            if kind == '{}':
                entry = m.nested_type.add(name=label.title() + 'Entry')
                entry.options.map_entry = True
                for n, key in ((1, 'key'), (2, 'value')):
                    entry.field.add(name=key, number=n, label=1, type=9)
                d.type, d.type_name = 11, f'.v1beta1.{name}.{entry.name}'
            elif kind.strip('<>') in kinds:
                d.type = kinds[kind.strip('<>')]
            else:
                d.type, d.type_name = 11, '.v1beta1.' + kind.strip('<>')
    pool = descriptor_pool.DescriptorPool()
    pool.Add(f)
    factory = message_factory.MessageFactory(pool)
    return {n: factory.GetPrototype(pool.FindMessageTypeByName('v1beta1.' + n)) for n in names}


M = _messages()


class Plugin:
    """What the kubelet keeps of one endpoint: a connection and the list as it came last."""

    def __init__(self, kubelet, request):
        self.kubelet, self.resource, self.endpoint = kubelet, request.resource_name, request.endpoint
        self.options = request.options
        options = [('grpc.max_receive_message_length', 4 << 20)]
        if kubelet.authority:
            options.append(('grpc.default_authority', kubelet.authority))
        self.channel = grpc.insecure_channel('unix://' + os.path.join(kubelet.dir, request.endpoint), options=options)
        self.lists, self.stream = [], None

    def unary(self, method, request, answer, timeout=BOUND):
        call = self.channel.unary_unary('/v1beta1.DevicePlugin/' + method, request_serializer=type(request).SerializeToString,
                                        response_deserializer=M[answer].FromString)
        return call(request, timeout=timeout)

    def get_options(self):
        return self.unary('GetDevicePluginOptions', M['Empty'](), 'DevicePluginOptions')

    def watch(self):
        call = self.channel.unary_stream('/v1beta1.DevicePlugin/ListAndWatch', request_serializer=M['Empty'].SerializeToString,
                                         response_deserializer=M['ListAndWatchResponse'].FromString)
        self.stream = call(M['Empty']())
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for answer in self.stream:
                self.lists.append({d.ID: d.health == 'Healthy' for d in answer.devices})
                self.kubelet.tell('list', self)
        except grpc.RpcError as e:
            self.error = e
        self.kubelet.tell('end', self)

    def devices(self):
        return self.lists[-1] if self.lists else {}

    def healthy(self):
        return {i for i, ok in self.devices().items() if ok}

    def allocate(self, *containers, timeout=BOUND):
        """Each container is a list of IDs. Returns the responses, of one container itself."""
        q = M['AllocateRequest'](container_requests=[M['ContainerAllocateRequest'](devices_ids=c) for c in containers])
        answers = self.unary('Allocate', q, 'AllocateResponse', timeout).container_responses
        assert len(answers) == len(containers)
        return answers[0] if len(containers) == 1 else list(answers)

    def prefer(self, available, size, must=()):
        q = M['PreferredAllocationRequest'](container_requests=[M['ContainerPreferredAllocationRequest'](
            available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size)])
        return list(self.unary('GetPreferredAllocation', q, 'PreferredAllocationResponse').container_responses[0].deviceIDs)

    def close(self):
        if self.stream:
            self.stream.cancel()
        self.channel.close()


class Kubelet:
    """Behaviour is set by attributes, before start() or while it runs; what happened is told in self.events."""

    def __init__(self, directory):
        self.dir = directory
        self.inside = True       # calls back within Register, as kubelets do since 1.26; else dials after it has answered
        self.authority = None    # :authority of its calls; kubelets up to 1.25 send the path of the socket
        self.refuse = 0          # so many Registers are refused
        self.silent = 0          # ... are never answered
        self.watches = True      # opens ListAndWatch
        self.deaf = 0            # ... not for the first so many
        self.name = 'kubelet.sock'
        self.events = queue.Queue()
        self.server = None
        self.plugins = {}        # resource -> Plugin, the one of the last Register
        self.registrations = []  # (resource, options)
        self.lock = threading.Lock()
        self.changed = threading.Condition()

    # ---- what a test sees

    def tell(self, kind, plugin):
        with self.changed:
            self.events.put((time.monotonic(), kind, plugin.resource if plugin else None))
            self.changed.notify_all()

    def wait(self, fn, what):
        """Until fn() is true; looked at when something has happened."""
        until = time.monotonic() + BOUND
        with self.changed:
            while True:
                v = fn()
                if v:
                    return v
                if time.monotonic() > until:
                    raise AssertionError('waited in vain for ' + what)
                self.changed.wait(0.02)

    def wait_list(self, resource, fn=lambda p: True, what='a list'):
        """The plugin of a resource once it has sent a list for which fn(plugin) holds."""
        def look():
            p = self.plugins.get(resource)
            return p if p and p.lists and fn(p) else None
        return self.wait(look, f'{what} of {resource}')

    # ---- its life

    def wipe(self):
        """What a kubelet does at its start: all goes but directories and its checkpoint."""
        os.makedirs(self.dir, exist_ok=True)
        for name in os.listdir(self.dir):
            path = os.path.join(self.dir, name)
            if not os.path.isdir(path) and name != 'kubelet_internal_checkpoint':
                try:
                    os.unlink(path)
                except FileNotFoundError:          # a plugin that makes its socket anew at this moment
                    pass

    def start(self):
        self.wipe()
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
        handlers = {'Register': grpc.unary_unary_rpc_method_handler(
            self._register, request_deserializer=M['RegisterRequest'].FromString, response_serializer=M['Empty'].SerializeToString)}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('v1beta1.Registration', handlers),))
        assert self.server.add_insecure_port('unix://' + os.path.join(self.dir, self.name))
        self.started = time.monotonic()
        self.server.start()
        return self

    def stop(self, leave_file=False):
        """Ends at once, as if killed. With leave_file its socket stays and refuses."""
        if not self.server:
            return
        self.server.stop(0).wait()
        self.server = None
        with self.lock:
            plugins, self.plugins = list(self.plugins.values()), {}
        for p in plugins:
            p.close()
        path = os.path.join(self.dir, 'kubelet.sock')
        if leave_file:
            if os.path.exists(path):
                os.unlink(path)
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(path)
        elif os.path.exists(path):
            os.unlink(path)

    def restart(self, **kw):
        self.stop(**kw)
        return self.start()

    def remove_directory(self):
        while os.path.exists(self.dir):            # a plugin may make its socket anew at this moment
            shutil.rmtree(self.dir, ignore_errors=True)

    # ---- Register

    def _register(self, request, context):
        assert request.version == 'v1beta1', request
        if self.silent:
            self.silent -= 1
            self.tell('silent', None)
            context.add_callback(lambda: None)
            while context.is_active():
                time.sleep(0.01)
            return M['Empty']()
        if self.refuse:
            self.refuse -= 1
            self.tell('refused', None)
            context.abort(grpc.StatusCode.UNKNOWN, 'not today')
        p = Plugin(self, request)
        with self.lock:
            old = self.plugins.get(p.resource)
            self.plugins[p.resource] = p
            self.registrations.append((p.resource, request.options))
        if old:
            old.close()
        self.tell('register', p)
        if self.inside:
            p.options = p.get_options()
            self._watch(p)
        else:
            threading.Thread(target=lambda: (time.sleep(0.005), self._watch(p)), daemon=True).start()
        return M['Empty']()

    def _watch(self, p):
        if self.deaf:
            self.deaf -= 1
        elif self.watches:
            p.watch()


# ---- HTTP/2 by hand, for what no well-behaved library sends -----------------------------------------------------------------

class Raw:
    """One connection. Headers are sent as literals without compression; what comes is returned as (type, flags, stream, payload)."""
    DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8

    def __init__(self, path, settings=()):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(BOUND)
        self.s.connect(path)
        self.buf = b''
        self.s.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
        self.frame(self.SETTINGS, 0, 0, b''.join(struct.pack('>HI', k, v) for k, v in settings))

    def frame(self, kind, flags, stream, payload=b''):
        self.s.sendall(struct.pack('>I', len(payload))[1:] + struct.pack('>BBI', kind, flags, stream) + payload)

    def headers(self, stream, path, end=False, content_type='application/grpc', **more):
        fields = [(':method', 'POST'), (':scheme', 'http'), (':path', path), (':authority', 'localhost'),
                  ('content-type', content_type), ('te', 'trailers'), *more.items()]
        block = b''.join(b'\0' + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode() for k, v in fields)
        self.frame(self.HEADERS, 4 | (1 if end else 0), stream, block)

    def data(self, stream, payload, end=True):
        self.frame(self.DATA, 1 if end else 0, stream, payload)

    def _take(self, n):
        while len(self.buf) < n:
            more = self.s.recv(65536)
            if not more:
                raise EOFError
            self.buf += more
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def next(self):
        head = self._take(9)
        n = int.from_bytes(head[:3], 'big')
        kind, flags, stream = struct.unpack('>BBI', head[3:])
        payload = self._take(n)
        if kind == self.SETTINGS and not flags & 1:
            self.frame(self.SETTINGS, 1, 0)
        return kind, flags, stream & 0x7fffffff, payload

    def until_end(self, stream):
        """(payload of DATA, payload of the last HEADERS or None, reset code or None) of a stream that ends."""
        body, last, reset = b'', None, None
        while True:
            kind, flags, sid, payload = self.next()
            if kind == self.GOAWAY:
                raise EOFError('GOAWAY')
            if sid != stream:
                continue
            if kind == self.DATA:
                body += payload
            elif kind == self.HEADERS:
                last = payload
            elif kind == self.RST:
                return body, last, int.from_bytes(payload, 'big')
            if kind in (self.DATA, self.HEADERS) and flags & 1:
                return body, last, reset

    def status(self, stream):
        """grpc-status of a stream that ends, from its last headers: nghttp2 writes small numbers plain or in Huffman code."""
        _, last, reset = self.until_end(stream)
        return status_in(last) if last is not None else f'reset {reset}'

    def window(self, stream, n):
        self.frame(self.WINDOW, 0, stream, struct.pack('>I', n))

    def close(self):
        self.s.close()


def status_in(block):
    """The value of grpc-status in a header block that holds it as a literal. Digits in HPACK's Huffman code have 5 or 6 bits."""
    codes = {0b00000: '0', 0b00001: '1', 0b00010: '2', 0b011001: '3', 0b011010: '4', 0b011011: '5', 0b011100: '6', 0b011101: '7',
             0b011110: '8', 0b011111: '9'}
    huffman_name = bytes.fromhex('9acac8b21234da8f')            # "grpc-status"
    for name, raw in ((b'\x0bgrpc-status', False), (bytes([0x80 | len(huffman_name)]) + huffman_name, True)):
        at = block.find(name)
        if at < 0:
            continue
        rest = block[at + len(name):]
        n = rest[0] & 0x7f
        value = rest[1:1 + n]
        if not rest[0] & 0x80:
            return value.decode()
        bits, out = ''.join(f'{b:08b}' for b in value), ''
        while bits:
            for size in (5, 6):
                if len(bits) >= size and int(bits[:size], 2) in codes and (size == 5) == (int(bits[:size], 2) < 3):
                    out += codes[int(bits[:size], 2)]
                    bits = bits[size:]
                    break
            else:
                break
        return out
    return 'none'
