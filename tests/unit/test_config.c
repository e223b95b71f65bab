/* SPDX-License-Identifier: Apache-2.0 */
/* Node configuration: every key, every error with its line, contracts.d, effective output and what a reload changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "contract/alias.h"
#include "contract/config.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' does not say '%s'", text, part);
}

/* @says may end in "...": then only the beginning is compared. */
static void assert_says(const char *text, const char *says)
{
	size_t len = strlen(says);
	if (len > 3 && !strcmp(says + len - 3, "...") ? strncmp(text, says, len - 3) : strcmp(text, says))
		fail_msg("'%s' is not '%s'", text, says);
}

static struct pen_config load(const char *text)
{
	struct pen_config cfg;
	struct pen_err err = PEN_ERR_INIT;
	if (pen_config_load_bytes("p.yaml", text, strlen(text), &cfg, &err) < 0)
		fail_msg("%s", err.text);
	return cfg;
}

static char *print(const struct pen_config *cfg)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	assert_int_equal(pen_config_print(cfg, out), 0);
	fclose(out);
	return text;
}

static const char full[] =
	"state_dir: /s\nruntime_dir: /r\nsocket: /x/y.sock\ngroup: penstock\nlog_level: debug\ntick: 2ms\n"
	"http:\n  listen: \"[::1]:80\"\nretention:\n  days: 7\n  max_size: 64M\n"
	"audit:\n  period: 500ms\n  unknown_processes: stop\n  known: \"/usr/lib/xorg/Xorg:/a b\"\n  allowance: 2G\n"
	"shim_dir: /l\nmetrics:\n  textfile: /m\n  interval: 5s\ncdi:\n  directory: /c\n"
	"kubernetes:\n  enabled: true\n  resource_domain: edge.example\n  directory: /k\n  lease: 5m\n  pods: \"127.0.0.1:10255\"\n"
	"  bundles: \"/a:/b\"\n  profiles:\n    # p.yaml:32\n    - name: vgpu-2g\n      device: T4\n      memory: 2G\n      compute: 25%\n"
	"      count: 3\n      cdi: \"nvidia.com/gpu=0\"\n  aliases:\n    nvidia.com/gpu: vgpu-2g\n"
	"policy:\n  order: strict\n  share: fairshare\n  rate: cap\n  mode: corun\n  quantum: 4ms\n  reserve: 512M\n"
	"devices:\n  - device: \"T4 #1\"\n    mode: exclusive\n    reserve: 1G\n"
	"contracts:\n  # p.yaml:53\n  - name: cam\n    class: latency\n    memory: 1G..2G\n  # p.yaml:57\n  - name: train\n";

static void test_full_round_trip(void **state)
{
	(void)state;
	struct pen_config cfg = load(full), again;
	assert_string_equal(cfg.state_dir, "/s");
	assert_string_equal(cfg.socket, "/x/y.sock");
	assert_string_equal(cfg.group, "penstock");
	assert_int_equal(cfg.log_level, PEN_LOG_DEBUG);
	assert_int_equal(cfg.tick_ns, 2 * PEN_MS);
	assert_string_equal(cfg.http_listen, "[::1]:80");
	assert_int_equal(cfg.retention_days, 7);
	assert_int_equal(cfg.retention_max_size, 64 * PEN_MIB);
	assert_int_equal(cfg.policy.mode, PEN_RUN_CORUN);
	assert_int_equal(cfg.policy.quantum_ns, 4 * PEN_MS);
	assert_int_equal(cfg.policy.reserve, 512 * PEN_MIB);
	assert_int_equal(cfg.set_mask, (1u << PEN_CONFIG_MAX_) - 1);
	assert_int_equal(cfg.policy_set_mask, (1u << PEN_POLICY_MAX_) - 1);
	assert_int_equal(cfg.n_devices, 1);
	assert_int_equal(cfg.n_contracts, 2);
	assert_string_equal(cfg.contracts[0].origin, "p.yaml:53");
	assert_int_equal(cfg.audit_period_ns, 500 * PEN_MS);
	assert_int_equal(cfg.audit_unknown, PEN_UNKNOWN_STOP);
	assert_string_equal(cfg.audit_known, "/usr/lib/xorg/Xorg:/a b");
	assert_int_equal(cfg.audit_allowance, 2 * PEN_GIB);
	assert_true(cfg.kube_enabled);
	assert_int_equal(cfg.kube_lease_ns, 300 * PEN_S);
	assert_int_equal(cfg.n_profiles, 1);
	assert_int_equal(cfg.profiles[0].count, 3);
	assert_int_equal(cfg.profiles[0].contract.memory.guaranteed, 2 * PEN_GIB);
	assert_int_equal(cfg.n_aliases, 1);
	assert_string_equal(cfg.aliases[0].profile, "vgpu-2g");
	assert_int_equal(cfg.contracts[0].contract.cls, PEN_CLASS_LATENCY);

	pen_auto_free char *text = print(&cfg);
	assert_string_equal(text, full);
	again = load(text);
	struct pen_diff d = { 0 };
	assert_int_equal(pen_config_diff(&cfg, &again, &d), 0);
	assert_int_equal(d.n, 0);
	pen_config_free(&cfg);
	pen_config_free(&again);
}

static void test_defaults(void **state)
{
	(void)state;
	struct pen_config cfg = load("# nothing\n"), fresh, again;
	struct pen_config_row row;
	size_t n = 0;

	pen_config_init(&fresh);
	assert_memory_equal(&cfg, &fresh, sizeof(cfg));
	assert_string_equal(cfg.socket, "/run/penstock/penstock.sock");
	assert_int_equal(cfg.set_mask, 0);
	for (; pen_config_row(n, &row); n++) {
		/* Each default is a value that the key itself accepts. */
		assert_int_equal(pen_config_set(&fresh, row.key, row.deflt, NULL), 0);
		assert_true(row.allowed[0] && row.help[0]);
	}
	assert_int_equal(n, PEN_CONFIG_MAX_ + PEN_POLICY_MAX_);
	struct pen_diff d = { 0 };
	assert_int_equal(pen_config_diff(&cfg, &fresh, &d), 0);
	assert_int_equal(d.n, 0);

	pen_auto_free char *text = print(&cfg);
	assert_has(text, "tick: 5ms   # default\nhttp:\n  listen: ");
	assert_has(text, "\ncontracts: []   # default\n");
	again = load(text);
	assert_string_equal(again.http_listen, cfg.http_listen);
	pen_config_free(&again);
}

static void test_set(void **state)
{
	(void)state;
	struct pen_config cfg;
	struct pen_err err = PEN_ERR_INIT;
	char path[300];
	pen_config_init(&cfg);
	assert_int_equal(pen_config_set(&cfg, "runtime_dir", "/tmp/p", NULL), 0);
	assert_string_equal(cfg.socket, "/tmp/p/penstock.sock");
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[93] = 0;
	assert_int_equal(pen_config_set(&cfg, "runtime_dir", path, &err), 0);
	assert_int_equal(strlen(cfg.socket), 107);
	path[93] = 'x';
	path[94] = 0;
	assert_int_equal(pen_config_set(&cfg, "runtime_dir", path, &err), -EINVAL);
	assert_has(err.text, "runtime_dir: the path is too long for a socket in it");
	assert_int_equal(strlen(cfg.runtime_dir), 93);
	path[94] = 'x';
	path[108] = 0;
	assert_int_equal(pen_config_set(&cfg, "socket", path, &err), -EINVAL);
	assert_int_equal(strlen(cfg.socket), 107);
	path[108] = 'x';
	path[107] = 0;
	assert_int_equal(pen_config_set(&cfg, "socket", path, &err), 0);
	path[107] = 'x';
	path[255] = 0;
	assert_int_equal(pen_config_set(&cfg, "runtime_dir", path, &err), 0);
	path[255] = 'x';
	path[256] = 0;
	assert_int_equal(pen_config_set(&cfg, "runtime_dir", path, &err), -EINVAL);
	assert_has(err.text, "is too long");
	assert_int_equal(pen_config_set(&cfg, "policy.mode", "corun", NULL), 0);
	assert_int_equal(cfg.policy.mode, PEN_RUN_CORUN);
	assert_int_equal(pen_config_set(&cfg, "policy.mode", "both", &err), -EINVAL);
	assert_says(err.text, "policy.mode: 'both' is not valid; allowed: exclusive or corun");
	assert_int_equal(pen_config_set(&cfg, "policy.nope", "1", &err), -ENOENT);
	assert_int_equal(pen_config_set(&cfg, "http", "1", &err), -ENOENT);
	assert_string_equal(err.text, "http: unknown key; `penstock config show` lists them");
}

struct bad_case {
	const char *text;
	int code;
	const char *says;
};

static const struct bad_case bad_cases[] = {
	{ "state_dir: rel/path\n", -EINVAL, "p.yaml:1: state_dir: 'rel/path' is not valid; allowed: an absolute path of ..." },
	{ "\nruntime_dir: ''\n", -EINVAL, "p.yaml:2: runtime_dir: '' is not valid; ..." },
	{ "socket: \"/a\\nb\"\n", -EINVAL, "p.yaml:1: socket: '/a?b' is not valid; ..." },
	{ "group: a b\n", -EINVAL, "p.yaml:1: group: 'a b' is not valid; allowed: auto, none, or the name of a Unix group" },
	{ "log_level: loud\n", -EINVAL, "p.yaml:1: log_level: 'loud' is not valid; allowed: error, warn, info or debug" },
	{ "tick: 5\n", -EINVAL, "p.yaml:1: tick: '5' is not valid; is '5ms' meant? allowed: a time from 1ms to 100ms" },
	{ "tick: 0.5ms\n", -ERANGE, "p.yaml:1: tick: '0.5ms' is out of range; allowed: a time from 1ms to 100ms" },
	{ "tick: 101ms\n", -ERANGE, "p.yaml:1: tick: '101ms' is out of range; ..." },
	{ "tick: [5ms]\n", -EINVAL, "p.yaml:1: tick: must be a single value; allowed: a time from 1ms to 100ms" },
	{ "http:\n  listen: localhost:80\n", -EINVAL, "p.yaml:2: http.listen: 'localhost:80' is not valid; allowed: none, or ..." },
	{ "http:\n  listen: 127.0.0.1\n", -EINVAL, "p.yaml:2: http.listen: '127.0.0.1' is not valid; ..." },
	{ "http:\n  listen: 127.0.0.1:0\n", -EINVAL, "p.yaml:2: http.listen: '127.0.0.1:0' is not valid; ..." },
	{ "http:\n  listen: 127.0.0.1:65536\n", -EINVAL, "p.yaml:2: http.listen: ..." },
	{ "http:\n  listen: '::1:80'\n", -EINVAL, "p.yaml:2: http.listen: '::1:80' is not valid; ..." },
	{ "http:\n  port: 80\n", -EINVAL, "p.yaml:2: http.port: unknown key; `penstock config show` lists them" },
	{ "http: on\n", -EINVAL, "p.yaml:1: http: must be a mapping of keys" },
	{ "http: {}\ntick: 5ms\nhttp: {}\n", -EINVAL, "p.yaml:3: http: given twice, first in line 1" },
	{ "http.listen: none\n", -EINVAL, "p.yaml:1: http.listen: unknown key; ..." },
	{ "http:\n  http:\n    listen: none\n", -EINVAL, "p.yaml:2: http.http: unknown key; ..." },
	{ "retention:\n  days: 0\n", -EINVAL, "p.yaml:2: retention.days: '0' is not valid; allowed: 1 to 3650" },
	{ "retention:\n  days: 3651\n", -EINVAL, "p.yaml:2: retention.days: ..." },
	{ "audit:\n  unknown_processes: kill\n", -EINVAL, "p.yaml:2: audit.unknown_processes: 'kill' is not valid; allowed: report or stop" },
	{ "audit:\n  known: Xorg\n", -EINVAL, "p.yaml:2: audit.known: 'Xorg' is not valid; allowed: none, or absolute paths ..." },
	{ "audit:\n  allowance: 9999T\n", -ERANGE, "p.yaml:2: audit.allowance: '9999T' is out of range; allowed: a size such as 512M, or 0" },
	{ "audit:\n  period: 99ms\n", -ERANGE, "p.yaml:2: audit.period: '99ms' is out of range; allowed: a time from 100ms to 1m" },
	{ "retention:\n  max_size: 1K\n", -ERANGE, "p.yaml:2: retention.max_size: '1K' is out of range; allowed: a size from 1M ..." },
	{ "shim_dir: lib\n", -EINVAL, "p.yaml:1: shim_dir: 'lib' is not valid; allowed: auto, or ..." },
	{ "metrics:\n  textfile: m\n", -EINVAL, "p.yaml:2: metrics.textfile: 'm' is not valid; allowed: none, or ..." },
	{ "metrics:\n  interval: 1ms\n", -ERANGE, "p.yaml:2: metrics.interval: '1ms' is out of range; allowed: a time from ..." },
	{ "cdi:\n  directory: cdi\n", -EINVAL, "p.yaml:2: cdi.directory: 'cdi' is not valid; allowed: auto, or ..." },
	{ "kubernetes:\n  enabled: maybe\n", -EINVAL, "p.yaml:2: kubernetes.enabled: 'maybe' is not valid; allowed: true or false" },
	{ "kubernetes:\n  resource_domain: Edge\n", -EINVAL, "p.yaml:2: kubernetes.resource_domain: 'Edge' is not valid; ..." },
	{ "kubernetes:\n  resource_domain: a.kubernetes.io\n", -EINVAL,
	  "p.yaml:2: kubernetes.resource_domain: 'a.kubernetes.io' is Kubernetes' own; ..." },
	{ "kubernetes:\n  resource_domain: a..b\n", -EINVAL, "p.yaml:2: kubernetes.resource_domain: ..." },
	{ "kubernetes:\n  directory: k\n", -EINVAL, "p.yaml:2: kubernetes.directory: 'k' is not valid; ..." },
	{ "kubernetes:\n  lease: 25h\n", -ERANGE, "p.yaml:2: kubernetes.lease: '25h' is out of range; ..." },
	{ "kubernetes:\n  pods: 10255\n", -EINVAL, "p.yaml:2: kubernetes.pods: '10255' is not valid; ..." },
	{ "kubernetes:\n  pods: '[::1]:10255'\n", -EINVAL, "p.yaml:2: kubernetes.pods: ..." },
	{ "kubernetes:\n  bundles: /a::/b\n", -EINVAL, "p.yaml:2: kubernetes.bundles: '/a::/b' is not valid; ..." },
	{ "kubernetes:\n  profile: []\n", -EINVAL, "p.yaml:2: kubernetes.profile: unknown key; ..." },
	{ "profiles: []\n", -EINVAL, "p.yaml:1: profiles: unknown key; ..." },
	{ "kubernetes:\n  profiles: {}\n", -EINVAL, "p.yaml:2: kubernetes.profiles: must be a list ..." },
	{ "kubernetes:\n  profiles: []\n  profiles: []\n", -EINVAL, "p.yaml:3: kubernetes.profiles: given twice, first in line 2" },
	{ "kubernetes:\n  profiles:\n    - memory: 1G\n", -EINVAL, "p.yaml:3: name: is missing; ..." },
	{ "kubernetes:\n  profiles:\n    - name: a\n      memory: ..1G\n", -EINVAL, "p.yaml:3: count: is missing: ..." },
	{ "kubernetes:\n  profiles:\n    - name: a\n      count: 65\n", -EINVAL, "p.yaml:4: count: '65' is not valid; allowed: 1 to 64" },
	{ "kubernetes:\n  profiles:\n    - name: a\n      count: -1\n", -EINVAL, "p.yaml:4: count: '-1' is not valid; ..." },
	{ "kubernetes:\n  profiles:\n    - name: a\n      count: [1]\n", -EINVAL, "p.yaml:4: count: must be a single value; ..." },
	{ "kubernetes:\n  profiles:\n    - name: a\n      count: 1\n      nvidia.com/gpu: 2\n", -EINVAL,
	  "p.yaml:5: nvidia.com/gpu: given twice, first in line 4" },
	{ "kubernetes:\n  profiles:\n    - name: a\n      cdi: gpu\n", -EINVAL, "p.yaml:4: cdi: 'gpu' is not valid; ..." },
	{ "kubernetes:\n  profiles:\n    - name: a\n      memory: 1G\n      nvidia.com/gpumem: 2048\n", -EINVAL,
	  "p.yaml:5: nvidia.com/gpumem: given twice, first in line 4" },
	{ "kubernetes:\n  profiles:\n    - name: a\n      nvidia.com/gpumem: 2G\n", -EINVAL,
	  "p.yaml:4: nvidia.com/gpumem: '2G' is not valid; allowed: a whole number, MiB of device memory" },
	{ "kubernetes:\n  profiles:\n    - name: a\n      nvidia.com/gpumem-percentage: 20\n", -EINVAL,
	  "p.yaml:4: nvidia.com/gpumem-percentage: says per cent of the memory of a card; ..." },
	{ "kubernetes:\n  profiles:\n    - name: a\n      nvidia.com/gpucores: 200\n", -EINVAL, "p.yaml:4: nvidia.com/gpucores: compute: ..." },
	{ "kubernetes:\n  profiles:\n    - name: a\n      memroy: 1G\n", -EINVAL, "p.yaml:4: memroy: unknown field of a contract; ..." },
	{ "kubernetes:\n  profiles:\n    - name: a\n      memory: 1G\n    - name: a\n      memory: 1G\n", -EINVAL,
	  "p.yaml:5: name: 'a' is taken by the profile in p.yaml:3" },
	{ "kubernetes:\n  profiles:\n    - name: a-\n      count: 1\n", -EINVAL, "p.yaml:3: name: 'a-' is no name of a resource: ..." },
	{ "kubernetes:\n  aliases: []\n", -EINVAL, "p.yaml:2: kubernetes.aliases: must be a mapping, ..." },
	{ "kubernetes:\n  aliases:\n    gpu: a\n", -EINVAL, "p.yaml:3: kubernetes.aliases: 'gpu' is not valid; ..." },
	{ "kubernetes:\n  aliases:\n    x.kubernetes.io/gpu: a\n", -EINVAL, "p.yaml:3: kubernetes.aliases: ..." },
	{ "kubernetes:\n  aliases:\n    nvidia.com/gpu: a\n", -EINVAL,
	  "p.yaml:3: kubernetes.aliases: nvidia.com/gpu: there is no profile 'a'" },
	{ "kubernetes:\n  aliases:\n    nvidia.com/gpu: a\n    nvidia.com/gpu: a\n", -EINVAL,
	  "p.yaml:4: kubernetes.aliases: 'nvidia.com/gpu' has an entry already" },
	{ "kubernetes:\n  aliases:\n    penstock.io/a: a\n  profiles:\n    - name: a\n      memory: 1G\n", -EINVAL,
	  "p.yaml:3: kubernetes.aliases: penstock.io/a: is the name of a profile itself" },
	{ "audit:\n  unknown_process: report\n", -EINVAL, "p.yaml:2: audit.unknown_process: unknown key; ..." },
	{ "auditor:\n  period: 1s\n", -EINVAL, "p.yaml:1: auditor: unknown key; ..." },
	{ "tick: 5ms\ntack: 5ms\n", -EINVAL, "p.yaml:2: tack: unknown key; ..." },
	{ "tick: 5ms\n\ntick: 5ms\n", -EINVAL, "p.yaml:3: tick: given twice, first in line 1" },
	{ "policy:\n  mode: both\n", -EINVAL, "p.yaml:2: policy.mode: 'both' is not valid; allowed: exclusive or corun" },
	{ "policy:\n  order: fifo\n", -EINVAL, "p.yaml:2: policy.order: 'fifo' is not valid; allowed: ..." },
	{ "policy:\n  share: lottery\n", -EINVAL, "p.yaml:2: policy.share: 'lottery' is not valid; allowed: fairshare or turns" },
	{ "policy:\n  share: elastic\n", -EINVAL, "p.yaml:2: policy.share: 'elastic' is not valid; ..." },
	{ "policy:\n  rate: fast\n", -EINVAL, "p.yaml:2: policy.rate: 'fast' is not valid; allowed: ..." },
	{ "policy:\n  quantum: 2s\n", -ERANGE, "p.yaml:2: policy.quantum: '2s' is out of range; allowed: a time from 1ms to 1s" },
	{ "policy:\n  reserve: 5%\n", -EINVAL, "p.yaml:2: policy.reserve: '5%' is not valid; ..." },
	{ "policy:\n  quanta: 5ms\n", -EINVAL, "p.yaml:2: policy.quanta: unknown key; ..." },
	{ "policy:\n  mode: corun\n  mode: corun\n", -EINVAL, "p.yaml:3: policy.mode: given twice, first in line 2" },
	{ "policy:\n  mode: {}\n", -EINVAL, "p.yaml:2: policy.mode: must be a single value; allowed: exclusive or corun" },
	{ "policy:\n  device: T4\n", -EINVAL, "p.yaml:2: policy.device: unknown key; ..." },
	{ "policy: strict\n", -EINVAL, "p.yaml:1: policy: must be a mapping of keys" },
	{ "policy: {}\npolicy: {}\n", -EINVAL, "p.yaml:2: policy: given twice, first in line 1" },
	{ "devices:\n  device: T4\n", -EINVAL, "p.yaml:2: devices: must be a list ..." },
	{ "devices:\n  - mode: corun\n", -EINVAL, "p.yaml:2: devices.device: is missing or not a single value; ..." },
	{ "devices:\n  - device: any\n", -EINVAL, "p.yaml:2: devices.device: 'any' is what `policy:` is for; ..." },
	{ "devices:\n  - device: T4\n  - device: t4\n", -EINVAL, "p.yaml:3: devices.device: 't4' has an entry already" },
	{ "devices:\n  - device: T4\n    mod: corun\n", -EINVAL, "p.yaml:3: devices.mod: unknown key; ..." },
	{ "devices:\n  - device: T4\n    device: T5\n", -EINVAL, "p.yaml:3: devices.device: given twice, first in line 2" },
	{ "devices:\n  - device: T4\n    mode: x\n", -EINVAL, "p.yaml:3: devices.mode: 'x' is not valid; ..." },
	{ "devices:\n  - T4\n", -EINVAL, "p.yaml:2: devices: must be a mapping of keys" },
	{ "contracts:\n  - memory: 1G\n", -EINVAL, "p.yaml:2: name: is missing; allowed: 1 to 63 of ..." },
	{ "contracts:\n  - name: a\n    memroy: 1G\n", -EINVAL, "p.yaml:3: memroy: unknown field of a contract; ..." },
	{ "contracts:\n  - name: a\n    memory: 1Q\n", -EINVAL, "p.yaml:3: memory: '1Q' is not valid; ..." },
	{ "contracts:\n  - name: a\n    duty: 5%\n", -EINVAL, "p.yaml:3: duty: only for class latency, ..." },
	{ "contracts:\n  - name: a\n  - name: b\n  - name: a\n", -EINVAL, "p.yaml:4: name: 'a' is taken by the contract in p.yaml:2" },
	{ "contracts: {}\n", -EINVAL, "p.yaml:1: contracts: must be a list ..." },
	{ "- tick: 5ms\n", -EINVAL, "p.yaml:1: the file must be a mapping of keys, ..." },
	{ "tick: 5ms\n\"\n", -EINVAL, "p.yaml:3: not YAML: ..." },
	{ "? []\n: 1\n", -EINVAL, "p.yaml:1: a key must be a plain text" },
};

/* Names of other systems in a profile: one spelling each. */
static void test_aliases(void **state)
{
	(void)state;
	struct pen_config cfg = load("kubernetes:\n  profiles:\n"
				     "    - {name: a, nvidia.com/gpu: 4, nvidia.com/gpumem: 3000, nvidia.com/gpucores: 30, nvidia.com/priority: 0}\n"
				     "    - {name: b, aliyun.com/gpu-mem: 2, tencent.com/vcuda-core-limit: 50}\n"
				     "    - {name: c, tencent.com/vcuda-memory: 6, volcano.sh/vgpu-use-gpuuuid: GPU-1, nvidia.com/priority: 1}\n"
				     "  aliases: {nvidia.com/gpu: a, aliyun.com/gpu-mem: b}\n");
	const struct pen_config_profile *p = cfg.profiles;
	assert_int_equal(cfg.n_profiles, 3);
	assert_int_equal(p[0].count, 4);
	assert_int_equal(p[0].contract.memory.guaranteed, 3000 * PEN_MIB);
	assert_int_equal(p[0].contract.memory.cap, 3000 * PEN_MIB);
	assert_int_equal(p[0].contract.compute.guaranteed, 300000);
	assert_int_equal(p[0].contract.priority, 75);
	assert_int_equal(p[1].contract.memory.cap, 2 * PEN_GIB);
	assert_int_equal(p[1].contract.compute.guaranteed, 0);
	assert_int_equal(p[1].contract.compute.cap, 500000);
	assert_int_equal(p[2].contract.memory.cap, 1536 * PEN_MIB);
	assert_string_equal(p[2].contract.device, "GPU-1");
	assert_int_equal(p[2].contract.priority, 50);
	assert_int_equal(cfg.n_aliases, 2);
	pen_config_free(&cfg);
	for (size_t i = 0; pen_alias(i); i++) {
		struct pen_contract c;
		struct pen_err err = PEN_ERR_INIT;
		pen_contract_init(&c);
		assert_ptr_equal(pen_alias_find(pen_alias(i)->name), pen_alias(i));
		int r = pen_alias_set(&c, pen_alias(i), "1", &err);
		assert_int_equal(r, pen_alias_field(pen_alias(i)->kind) < 0 ? -ENOTSUP : 0);
		assert_int_equal(c.set_mask, r < 0 ? 0 : 1u << pen_alias_field(pen_alias(i)->kind));
		assert_true(r == 0 || strstr(err.text, pen_alias(i)->name));
	}
	assert_null(pen_alias_find("nvidia.com/gpum"));
}

static void test_errors(void **state)
{
	(void)state;
	struct pen_config_row row;
	for (size_t i = 0; i < PEN_ARRAY_LEN(bad_cases); i++) {
		const struct bad_case *k = &bad_cases[i];
		struct pen_config cfg = { .retention_days = 77 };
		struct pen_err err = PEN_ERR_INIT;
		int r = pen_config_load_bytes("p.yaml", k->text, strlen(k->text), &cfg, &err);
		if (r != k->code)
			fail_msg("case %zu: code %d, '%s'", i, r, err.text);
		assert_says(err.text, k->says);
		assert_int_equal(err.code, k->code);
		assert_int_equal(cfg.retention_days, 77);
		assert_int_equal(pen_config_load_bytes("p.yaml", k->text, strlen(k->text), &cfg, NULL), k->code);
	}
	/* Every key has a case in which its value is refused. */
	for (size_t i = 0; pen_config_row(i, &row); i++) {
		char part[64];
		bool found = false;
		snprintf(part, sizeof(part), ": %s: '", row.key);
		for (size_t k = 0; k < PEN_ARRAY_LEN(bad_cases); k++)
			found |= strstr(bad_cases[k].says, part) != NULL;
		if (!found)
			fail_msg("no bad value for key %s", row.key);
	}
}

static void test_too_many(void **state)
{
	(void)state;
	pen_auto_free char *text = calloc(1, 200000);
	struct pen_config cfg;
	struct pen_err err = PEN_ERR_INIT;
	size_t len = (size_t)sprintf(text, "devices:\n");
	for (int i = 0; i < 65; i++)
		len += (size_t)sprintf(text + len, "- device: d%d\n", i);
	assert_int_equal(pen_config_load_bytes("p", text, len, &cfg, &err), -EINVAL);
	assert_string_equal(err.text, "p:66: devices: more than 64");
	len = (size_t)sprintf(text, "contracts:\n");
	for (int i = 0; i < 4097; i++)
		len += (size_t)sprintf(text + len, "- name: c%d\n", i);
	assert_int_equal(pen_config_load_bytes("p", text, len, &cfg, &err), -EINVAL);
	assert_string_equal(err.text, "p:4098: contracts: more than 4096");
}

static void test_device_policy(void **state)
{
	(void)state;
	struct pen_config cfg = load("devices:\n  - device: GPU-1\n    mode: corun\npolicy:\n  reserve: 1G\n  quantum: 3ms\n");
	const char *const mine[] = { "0000:3b:00.0", "gpu-1", "T4" };
	const char *const other[] = { "0000:3c:00.0", "gpu-2", "T4" };
	struct pen_device_policy p = pen_config_policy(&cfg, mine, 3);
	/* The node's keys hold whether they stand before or after the device's entry. */
	assert_int_equal(p.mode, PEN_RUN_CORUN);
	assert_int_equal(p.reserve, PEN_GIB);
	assert_int_equal(p.quantum_ns, 3 * PEN_MS);
	assert_int_equal(pen_config_policy(&cfg, other, 3).mode, PEN_RUN_EXCLUSIVE);
	pen_config_free(&cfg);
}

static uint64_t quantum(const char *text, const char *device)
{
	struct pen_config cfg = load(text);
	uint64_t ns = device ? pen_config_policy(&cfg, &device, 1).quantum_ns : cfg.policy.quantum_ns;
	/* What is printed says the same, for those who read it and for those who load it again. */
	pen_auto_free char *shown = print(&cfg);
	struct pen_config again = load(shown);
	assert_int_equal(device ? pen_config_policy(&again, &device, 1).quantum_ns : again.policy.quantum_ns, ns);
	pen_config_free(&cfg);
	pen_config_free(&again);
	return ns;
}

/* The default length of a turn is the share policy's. */
static void test_quantum(void **state)
{
	(void)state;
	assert_int_equal(quantum("{}", NULL), 4 * PEN_MS);
	assert_int_equal(quantum("policy: {share: turns}", NULL), 10 * PEN_MS);
	assert_int_equal(quantum("policy: {share: turns}", "T4"), 10 * PEN_MS);
	assert_int_equal(quantum("policy: {quantum: 7ms, share: turns}", NULL), 7 * PEN_MS);
	assert_int_equal(quantum("devices: [{device: T4, share: turns}]", "T4"), 10 * PEN_MS);
	assert_int_equal(quantum("devices: [{device: T4, share: turns}]", "T5"), 4 * PEN_MS);
	assert_int_equal(quantum("devices: [{device: T4, share: turns}]\npolicy: {quantum: 7ms}", "T4"), 7 * PEN_MS);
	assert_int_equal(quantum("devices: [{device: T4, share: fairshare}]\npolicy: {share: turns}", "T4"), 4 * PEN_MS);
	assert_int_equal(quantum("devices: [{device: T4, share: turns, quantum: 3ms}]", "T4"), 3 * PEN_MS);

	struct pen_config cfg;
	pen_config_init(&cfg);
	assert_int_equal(pen_config_set(&cfg, "policy.share", "turns", NULL), 0);
	assert_int_equal(cfg.policy.quantum_ns, 10 * PEN_MS);
	assert_int_equal(pen_config_set(&cfg, "policy.quantum", "5ms", NULL), 0);
	assert_int_equal(pen_config_set(&cfg, "policy.share", "fairshare", NULL), 0);
	assert_int_equal(cfg.policy.quantum_ns, 5 * PEN_MS);
}

static void test_diff(void **state)
{
	(void)state;
	struct pen_config a = load("tick: 5ms\ndevices:\n- device: T4\n  mode: corun\n- device: T5\n  mode: exclusive\n"
				   "contracts:\n- name: a\n  memory: 1G\n- name: b\n"
				   "kubernetes: {profiles: [{name: p, memory: 1G, count: 2}, {name: q, count: 1}], aliases: {x.y/p: p, x.y/q: q}}\n");
	struct pen_config b = load("tick: 2ms\nsocket: /s\nretention: {days: 3}\npolicy: {reserve: 1G}\ndevices:\n- device: T6\n"
				   "  quantum: 2ms\n  reserve: 0\ncontracts:\n- name: a\n  memory: 2G\n- name: c\n"
				   "kubernetes: {enabled: on, profiles: [{name: p, memory: 2G, cdi: x.y/z=1}, {name: r, count: 1}], aliases: {x.y/p: r, x.y/r: r}}\n");
	struct pen_diff d = { 0 };
	pen_auto_free char *text = NULL;
	size_t len;
	assert_int_equal(pen_config_diff(&a, &b, &d), 0);
	FILE *out = open_memstream(&text, &len);
	assert_int_equal(pen_diff_print(&d, out), 0);
	fclose(out);
	assert_string_equal(text, "socket: /run/penstock/penstock.sock -> /s  (after a restart)\n"
				  "tick: 5ms -> 2ms\n"
				  "retention.days: 30 -> 3\n"
				  "kubernetes.enabled: false -> true\n"
				  "policy.reserve: 0 -> 1G\n"
				  "device 'T4': mode: corun -> exclusive\n"
				  "device 'T4': reserve: 0 -> 1G\n"
				  "device 'T5': reserve: 0 -> 1G\n"
				  "device 'T6': quantum: 4ms -> 2ms\n"
				  "contract 'a': memory: 1G -> 2G\n"
				  "contract 'b': removed, was: p.yaml:10\n"
				  "contract 'c': new: p.yaml:12\n"
				  "profile 'p': memory: 1G -> 2G\n"
				  "profile 'p': count: removed, was: 2\n"
				  "profile 'p': cdi: new: x.y/z=1\n"
				  "profile 'q': removed, was: p.yaml:11\n"
				  "profile 'r': new: p.yaml:13\n"
				  "alias 'x.y/p': p -> r\n"
				  "alias 'x.y/q': removed, was: q\n"
				  "alias 'x.y/r': new: r\n");
	pen_diff_clear(&d);
	pen_config_free(&a);
	pen_config_free(&b);
}

/* ---- files ---- */

static char dir[64], contracts_d[80], conf[80];

static void put(const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/pen-config-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(conf, sizeof(conf), "%s/penstock.yaml", dir);
	snprintf(contracts_d, sizeof(contracts_d), "%s/contracts.d", dir);
	return mkdir(contracts_d, 0700);
}

static int remove_dir(void **state)
{
	(void)state;
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

static void test_contracts_d(void **state)
{
	(void)state;
	struct pen_config cfg;
	struct pen_err err = PEN_ERR_INIT;
	put("penstock.yaml", "contracts:\n- name: first\n");
	put("contracts.d/b.yaml", "memory: 1G\n");
	put("contracts.d/a.yml", "name: named\n");
	put("contracts.d/.hidden.yaml", "nonsense: 1\n");
	put("contracts.d/README", "nonsense\n");
	put("contracts.d/old.yaml~", "nonsense\n");
	if (pen_config_load(conf, NULL, &cfg, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(cfg.n_contracts, 3);
	assert_string_equal(cfg.contracts[0].contract.name, "first");
	assert_string_equal(cfg.contracts[1].contract.name, "named");
	assert_string_equal(cfg.contracts[2].contract.name, "b");
	assert_has(cfg.contracts[2].origin, "/contracts.d/b.yaml:1");
	pen_config_free(&cfg);

	assert_int_equal(pen_config_load(conf, "/nonexistent/d", &cfg, &err), 0);
	assert_int_equal(cfg.n_contracts, 1);
	pen_config_free(&cfg);
}

struct dir_case {
	const char *file, *text, *says;
};

static void test_contracts_d_errors(void **state)
{
	(void)state;
	static const struct dir_case cases[] = {
		{ "x.yaml", "memory: 1G\nfoo: 1\n", "/contracts.d/x.yaml:2: foo: unknown field of a contract" },
		{ "X Y.yaml", "memory: 1G\n", "/contracts.d/X Y.yaml:1: name: is missing; allowed: 1 to 63" },
		{ "x.yaml", "", "/contracts.d/x.yaml:1: the file holds no contract" },
		{ "x.yaml", "name: first\n", "/contracts.d/x.yaml:1: name: 'first' is taken by the contract in /tmp/" },
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(cases); i++) {
		struct pen_config cfg;
		struct pen_err err = PEN_ERR_INIT;
		char name[64], path[256];
		put("penstock.yaml", "contracts:\n- name: first\n");
		snprintf(name, sizeof(name), "contracts.d/%s", cases[i].file);
		put(name, cases[i].text);
		assert_int_equal(pen_config_load(conf, NULL, &cfg, &err), -EINVAL);
		assert_has(err.text, cases[i].says);
		snprintf(path, sizeof(path), "%s/%s", dir, name);
		assert_int_equal(unlink(path), 0);
	}
	/* A FIFO must not hold the daemon up. */
	char path[256];
	struct pen_config cfg;
	struct pen_err err = PEN_ERR_INIT;
	snprintf(path, sizeof(path), "%s/f.yaml", contracts_d);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(pen_config_load(conf, NULL, &cfg, &err), -EINVAL);
	assert_has(err.text, "f.yaml: not a regular file");
	unlink(path);
	assert_int_equal(symlink("/nonexistent", path), 0);
	assert_int_equal(pen_config_load(conf, NULL, &cfg, &err), -ENOENT);
	assert_has(err.text, "f.yaml: No such file");
}

static void test_named_file_must_exist(void **state)
{
	(void)state;
	struct pen_config cfg;
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(pen_config_load("/nonexistent/p.yaml", NULL, &cfg, &err), -ENOENT);
	assert_string_equal(err.text, "/nonexistent/p.yaml: No such file or directory");
	put("penstock.yaml", "tick: 1\n");
	assert_int_equal(pen_config_load(conf, NULL, &cfg, &err), -EINVAL);
	assert_has(err.text, "/penstock.yaml:1: tick: '1' is not valid");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_round_trip),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_aliases),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_device_policy),
		cmocka_unit_test(test_quantum),
		cmocka_unit_test(test_diff),
		cmocka_unit_test_setup_teardown(test_contracts_d, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_contracts_d_errors, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_named_file_must_exist, make_dir, remove_dir),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
