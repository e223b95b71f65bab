/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CONTRACT_CONFIG_H
#define PEN_CONTRACT_CONFIG_H
/*
 * Configuration of a node: /etc/penstock/penstock.yaml and, beside it, contracts.d/ with a file per contract.
 *
 * Nothing must be configured: without a file every key has its default. Unknown and doubled keys are errors with file
 * and line. Keys are written "section.key" in messages and in pen_config_set().
 *
 * Threading: one owner; share a loaded configuration read-only. Lifetime: pen_config_free() frees what pen_config_load()
 * or pen_config_init() and pen_config_set() made.
 */
#include "base/log.h"
#include "contract/contract.h"

#define PEN_CONFIG_FILE "/etc/penstock/penstock.yaml"
#define PEN_RUNTIME_DIR "/run/penstock"
#define PEN_CONFIG_PATH_MAX 255

/* What a daemon writes to --ready-fd: it serves; or another one holds its runtime directory, and it ends. */
#define PEN_READY_SERVES 0
#define PEN_READY_BUSY 1
#define PEN_CONFIG_DEVICES_MAX 64
#define PEN_CONFIG_CONTRACTS_MAX 4096
#define PEN_CONFIG_PROFILES_MAX 32
#define PEN_CONFIG_ALIASES_MAX 32
#define PEN_CONFIG_SLOTS_MAX 64   /* of one profile on one device: as many tenants have a place on it */

/*
 * Names in files. Only what is implemented stands here: a name that is accepted is a name that works. src/policy makes its
 * table of these three lists, with a function pen_policy_NAME for each row. Of a share policy: its own default quantum in ms.
 */
#define PEN_ORDERS(X) X(STRICT, strict)
#define PEN_SHARES(X) X(FAIRSHARE, fairshare, 4) X(TURNS, turns, 10)
#define PEN_RATES(X) X(CAP, cap)
#define PEN_MODES(X) X(EXCLUSIVE, exclusive) X(CORUN, corun)

/* What is done about processes that belong to no tenant. */
#define PEN_UNKNOWNS(X) X(REPORT, report) X(STOP, stop)

#define PEN_X_(id, name) PEN_UNKNOWN_##id,
enum pen_unknown { PEN_UNKNOWNS(PEN_X_) PEN_UNKNOWN_MAX_ };
#undef PEN_X_
#define PEN_X_(id, name) PEN_ORDER_##id,
enum pen_order { PEN_ORDERS(PEN_X_) PEN_ORDER_MAX_ };
#undef PEN_X_
#define PEN_X_(id, name, quantum_ms) PEN_SHARE_##id,
enum pen_share { PEN_SHARES(PEN_X_) PEN_SHARE_MAX_ };
#undef PEN_X_
#define PEN_X_(id, name) PEN_RATE_##id,
enum pen_rate { PEN_RATES(PEN_X_) PEN_RATE_MAX_ };
#undef PEN_X_
#define PEN_X_(id, name) PEN_RUN_##id,   /* not PEN_MODE_: those are the numbers on the board */
enum pen_mode { PEN_MODES(PEN_X_) PEN_RUN_MAX_ };
#undef PEN_X_

const char *pen_order_name(enum pen_order v);
const char *pen_share_name(enum pen_share v);
const char *pen_rate_name(enum pen_rate v);
const char *pen_mode_name(enum pen_mode v);
const char *pen_unknown_name(enum pen_unknown v);
/* Length of a turn under this policy where none is configured. */
uint64_t pen_share_quantum_ns(enum pen_share v);

/* How one device is run; also the node-wide default for devices that have no entry of their own. */
struct pen_device_policy {
	enum pen_order order;
	enum pen_share share;
	enum pen_rate rate;
	enum pen_mode mode;
	uint64_t quantum_ns;   /* length of a turn in mode exclusive; follows share while it is not set itself */
	uint64_t reserve;      /* bytes of device memory that are promised to nobody */
};

/* key, kind of value, member, default, allowed, help: of `policy:` and of each entry of `devices:`. */
#define PEN_POLICY_KEYS(X) \
	X(order, order, order, "strict", N_("strict"), \
	  N_("who goes first: by class and priority, earliest deadline among equals")) \
	X(share, share, share, "fairshare", N_("fairshare or turns"), \
	  N_("how device time is divided: guarantees, then by weight (fairshare), or equal turns, whatever was promised (turns)")) \
	X(rate, rate, rate, "cap", N_("cap"), \
	  N_("how bytes per second are divided: each contract's cap")) \
	X(mode, mode, mode, "exclusive", N_("exclusive or corun"), \
	  N_("commands of one tenant at a time (exact accounting), or of several beside each other")) \
	X(quantum, quantum, quantum_ns, "4ms", N_("a time from 1ms to 1s"), \
	  N_("length of a turn in mode exclusive; 10ms by default where share is turns")) \
	X(reserve, reserve, reserve, "0", N_("a size such as 512M, or 0"), \
	  N_("device memory that is promised to nobody"))

#define PEN_X_(id, ...) PEN_POLICY_##id,
enum pen_policy_key { PEN_POLICY_KEYS(PEN_X_) PEN_POLICY_MAX_ };
#undef PEN_X_

struct pen_config_device {
	char device[PEN_DEVICE_MAX + 1];   /* UUID, PCI address or model name; compared without regard to case */
	struct pen_device_policy policy;   /* the keys in set_mask; the others are the node's */
	uint32_t set_mask;                 /* bit (1u << enum pen_policy_key) */
};

struct pen_config_contract {
	struct pen_contract contract;
	char origin[160];                  /* "FILE:LINE", for messages */
};

/*
 * What Kubernetes may ask for: a contract that is offered as a number of slots on every device that it means. Its name is
 * that of the resource, below the node's resource_domain.
 */
struct pen_config_profile {
	struct pen_contract contract;
	uint32_t count;                    /* slots on each device; 0 = as many as the device can keep */
	char cdi[PEN_DEVICE_MAX + 1];      /* CDI device that each container gets as well; "" = none */
	char origin[160];
};

/* A profile under a name of another system as well. */
struct pen_config_alias {
	char resource[PEN_DEVICE_MAX + 1]; /* "domain/name" */
	char profile[PEN_NAME_MAX + 1];
};

struct pen_config {
	char state_dir[PEN_CONFIG_PATH_MAX + 1];
	char runtime_dir[PEN_CONFIG_PATH_MAX + 1];
	char socket[PEN_CONFIG_PATH_MAX + 1];   /* follows runtime_dir while it is not set itself */
	char group[32];                         /* Unix group that may change anything; "" = only the owner; "auto" */
	enum pen_log_level log_level;
	uint64_t tick_ns;
	char http_listen[64];                   /* "ADDRESS:PORT"; "" = no HTTP */
	uint32_t retention_days;
	uint64_t retention_max_size;            /* bytes of the database */
	char textfile[PEN_CONFIG_PATH_MAX + 1]; /* "" = none */
	uint64_t textfile_interval_ns;
	char cdi_dir[PEN_CONFIG_PATH_MAX + 1];  /* "" = as the kind of daemon has it */
	uint64_t audit_period_ns;
	enum pen_unknown audit_unknown;
	char audit_known[PEN_CONFIG_PATH_MAX + 1];   /* files, with ':' between them; "" = none */
	uint64_t audit_allowance;                    /* bytes of a process */
	char shim_dir[PEN_CONFIG_PATH_MAX + 1]; /* "" = lib/penstock beside the program */
	bool kube_enabled;
	char kube_domain[128];
	char kube_dir[PEN_CONFIG_PATH_MAX + 1];
	uint64_t kube_lease_ns;
	char kube_pods[64];                     /* "auto"; "" = none; "IPV4:PORT" */
	char kube_bundles[PEN_CONFIG_PATH_MAX + 1];   /* directories, with ':' between them */
	struct pen_device_policy policy;
	uint32_t set_mask;                      /* bit (1u << enum pen_config_key); others are defaults */
	uint32_t policy_set_mask;               /* bit (1u << enum pen_policy_key) */

	struct pen_config_device *devices;
	size_t n_devices;
	struct pen_config_contract *contracts;
	size_t n_contracts;
	struct pen_config_profile *profiles;
	size_t n_profiles;
	struct pen_config_alias *aliases;
	size_t n_aliases;
};

/* id, "section.key", kind of value, member, needs a restart of the daemon, default, allowed, help. */
#define PEN_CONFIG_KEYS(X) \
	X(state_dir, "state_dir", path, state_dir, true, "/var/lib/penstock", N_("an absolute path of at most 255 bytes"), \
	  N_("directory of the database")) \
	X(runtime_dir, "runtime_dir", path, runtime_dir, true, PEN_RUNTIME_DIR, \
	  N_("an absolute path of at most 255 bytes"), \
	  N_("directory of sockets and tenant directories")) \
	X(socket, "socket", path, socket, true, "/run/penstock/penstock.sock", \
	  N_("an absolute path of at most 107 bytes"), \
	  N_("control socket; by default penstock.sock in runtime_dir")) \
	X(group, "group", unix_group, group, true, "auto", N_("auto, none, or the name of a Unix group"), \
	  N_("group whose members may make, change and end contracts; auto: penstock, if there is such a group, for the system's daemon")) \
	X(log_level, "log_level", level, log_level, false, "info", N_("error, warn, info or debug"), \
	  N_("least important message that is logged")) \
	X(tick, "tick", tick, tick_ns, false, "5ms", N_("a time from 1ms to 100ms"), \
	  N_("how often policy decides and terms are written")) \
	X(http_listen, "http.listen", listen, http_listen, true, "127.0.0.1:9747", \
	  N_("none, or IPV4:PORT or [IPV6]:PORT"), \
	  N_("address of the read-only HTTP: the API to look at, and metrics")) \
	X(retention_days, "retention.days", days, retention_days, false, "30", N_("1 to 3650"), \
	  N_("how long usage and events are kept")) \
	X(retention_max_size, "retention.max_size", max_size, retention_max_size, false, "256M", \
	  N_("a size from 1M to 1T"), \
	  N_("size of the database above which the oldest rows go")) \
	X(audit_period, "audit.period", period, audit_period_ns, false, "1s", N_("a time from 100ms to 1m"), \
	  N_("how often the vendor's library is asked which process uses how much of a device")) \
	X(audit_unknown, "audit.unknown_processes", unknown, audit_unknown, false, "report", N_("report or stop"), \
	  N_("processes that use a device and belong to no tenant: reported, or also ended, which needs a daemon that runs as root")) \
	X(audit_known, "audit.known", path_list_or_none, audit_known, false, "none", \
	  N_("none, or absolute paths with : between them, at most 255 bytes"), \
	  N_("programs that may use a device without a contract, such as a display server: neither reported nor ended")) \
	X(audit_allowance, "audit.allowance", reserve, audit_allowance, false, "1G", N_("a size such as 512M, or 0"), \
	  N_("memory that each process may have beside what its tenant was charged (contexts, modules) without being reported")) \
	X(shim_dir, "shim_dir", path_or_auto, shim_dir, false, "auto", N_("auto, or an absolute path of at most 255 bytes"), \
	  N_("directory of the libraries that containers get; auto: lib/penstock beside the daemon")) \
	X(textfile, "metrics.textfile", path_or_none, textfile, false, "none", N_("none, or an absolute path of at most 255 bytes"), \
	  N_("file into which the metrics are written, for the textfile collector of node_exporter (*.prom)")) \
	X(textfile_interval, "metrics.interval", interval, textfile_interval_ns, false, "15s", N_("a time from 1s to 1h"), \
	  N_("how often that file is written")) \
	X(cdi_dir, "cdi.directory", path_or_auto, cdi_dir, false, "auto", N_("auto, or an absolute path of at most 255 bytes"), \
	  N_("where tenants are named as CDI devices; auto: /var/run/cdi of the system's daemon, nowhere of a private one")) \
	X(kube_enabled, "kubernetes.enabled", toggle, kube_enabled, false, "false", N_("true or false"), \
	  N_("serve the kubelet (KubeEdge, K3s, Kubernetes) as a device plugin")) \
	X(kube_domain, "kubernetes.resource_domain", domain, kube_domain, false, "penstock.io", \
	  N_("a DNS name outside kubernetes.io, at most 127 bytes"), \
	  N_("first part of the names of resources: DOMAIN/PROFILE")) \
	X(kube_directory, "kubernetes.directory", path, kube_dir, false, "/var/lib/kubelet/device-plugins", \
	  N_("an absolute path of at most 255 bytes"), \
	  N_("where the kubelet's socket appears; kubelets do not move it")) \
	X(kube_lease, "kubernetes.lease", lease, kube_lease_ns, false, "10m", N_("a time from 1s to 24h"), \
	  N_("how long what a pod was given is kept for it while none of its processes is seen")) \
	X(kube_pods, "kubernetes.pods", pods, kube_pods, false, "auto", N_("auto, none, or IPV4:PORT"), \
	  N_("the kubelet's read-only port, to learn the names of pods; auto: 10255 and 10350 of this machine")) \
	X(kube_bundles, "kubernetes.bundles", path_list, kube_bundles, false, \
	  "/run/containerd/io.containerd.runtime.v2.task/k8s.io:/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io", \
	  N_("absolute paths with : between them, at most 255 bytes"), \
	  N_("where the container runtime keeps the config.json of containers, to learn the names of pods"))

#define PEN_X_(id, ...) PEN_CONFIG_##id,
enum pen_config_key { PEN_CONFIG_KEYS(PEN_X_) PEN_CONFIG_MAX_ };
#undef PEN_X_

/* One row per key, of the node and of a policy ("policy.order"), for help, completion and the reference page. */
struct pen_config_row {
	const char *key;
	const char *deflt;
	const char *allowed;
	const char *help;
	bool restart;
};
bool pen_config_row(size_t i, struct pen_config_row *ret_row);   /* false: past the end */

/* All defaults, no devices, no contracts. */
void pen_config_init(struct pen_config *cfg);

/**
 * pen_config_load - read the node's configuration
 * @path: file; NULL: PEN_CONFIG_FILE, which may then be absent
 * @dir:  directory of contract files; NULL: contracts.d beside @path. It may be absent. Files *.yaml and *.yml count,
 *        in the order of their names; a contract without a name takes the file's.
 *
 * Return: 0; negative errno, @err then says file, line and key. @ret_cfg is written on success only.
 */
int pen_config_load(const char *path, const char *dir, struct pen_config *ret_cfg, struct pen_err *err);
/* As above, from memory and without a directory of contracts. */
int pen_config_load_bytes(const char *origin, const void *data, size_t len, struct pen_config *ret_cfg,
			  struct pen_err *err);
void pen_config_free(struct pen_config *cfg);

/* One key as "section.key", from an option of the daemon. Return: 0; -ENOENT unknown key; -EINVAL, -ERANGE value. */
int pen_config_set(struct pen_config *cfg, const char *key, const char *value, struct pen_err *err);

/* How to run the device that goes by any of @names (UUID, PCI address, model): its entry, else the node's policy. */
struct pen_device_policy pen_config_policy(const struct pen_config *cfg, const char *const *names, size_t n_names);

/* The effective configuration as YAML that loads again; what was not set is marked "# default". Return: 0; -EIO. */
int pen_config_print(const struct pen_config *cfg, FILE *out);

/* What a reload changes, keys, devices and contracts by name. Return: 0; -ENOMEM. */
int pen_config_diff(const struct pen_config *old, const struct pen_config *new, struct pen_diff *d);

#endif
