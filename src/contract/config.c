/* SPDX-License-Identifier: Apache-2.0 */
/* Node configuration: keys, defaults, look-up and comparison. Files are read in config_load.c. */
#include "contract/config.h"
#include "base/auto.h"
#include "contract/config_internal.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#define PEN_X_(id, key, kind, member, restart, deflt, allowed, help) \
	{ key, offsetof(struct pen_config, member), pen_value_parse_##kind, pen_value_format_##kind, deflt, allowed },
const struct pen_key pen_config_keys[] = { PEN_CONFIG_KEYS(PEN_X_) };
#undef PEN_X_

#define PEN_X_(key, kind, member, deflt, allowed, help) \
	{ #key, offsetof(struct pen_device_policy, member), pen_value_parse_##kind, pen_value_format_##kind, deflt, allowed },
const struct pen_key pen_policy_keys[] = { PEN_POLICY_KEYS(PEN_X_) };
#undef PEN_X_

#define PEN_X_(id, key, kind, member, restart, deflt, allowed, help) { key, deflt, allowed, help, restart },
#define PEN_Y_(key, kind, member, deflt, allowed, help) { "policy." #key, deflt, allowed, help, false },
static const struct pen_config_row rows[] = { PEN_CONFIG_KEYS(PEN_X_) PEN_POLICY_KEYS(PEN_Y_) };
#undef PEN_X_
#undef PEN_Y_

bool pen_config_row(size_t i, struct pen_config_row *ret_row)
{
	if (i >= PEN_ARRAY_LEN(rows))
		return false;
	*ret_row = rows[i];
	return true;
}

/* The socket lives in runtime_dir unless it was placed elsewhere. -EINVAL if that is longer than sun_path. */
static int derive_socket(struct pen_config *cfg)
{
	char path[sizeof(cfg->socket) + 16];
	if (cfg->set_mask & (1u << PEN_CONFIG_socket))
		return 0;
	int n = snprintf(path, sizeof(path), "%s/penstock.sock", cfg->runtime_dir);
	if ((size_t)n >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return -EINVAL;
	memcpy(cfg->socket, path, (size_t)n + 1);
	return 0;
}

void pen_config_derive_quantum(struct pen_device_policy *p, uint32_t set_mask)
{
	if (!(set_mask & (1u << PEN_POLICY_quantum)))
		p->quantum_ns = pen_share_quantum_ns(p->share);
}

void pen_config_init(struct pen_config *cfg)
{
	memset(cfg, 0, sizeof(*cfg));
	for (size_t i = 0; i < PEN_CONFIG_MAX_; i++)
		pen_key_set(&pen_config_keys[i], cfg, pen_config_keys[i].deflt, NULL);
	for (size_t i = 0; i < PEN_POLICY_MAX_; i++)
		pen_key_set(&pen_policy_keys[i], &cfg->policy, pen_policy_keys[i].deflt, NULL);
	derive_socket(cfg);
	pen_config_derive_quantum(&cfg->policy, 0);
}

void pen_config_free(struct pen_config *cfg)
{
	free(cfg->devices);
	free(cfg->contracts);
	free(cfg->profiles);
	free(cfg->aliases);
	cfg->devices = NULL;
	cfg->contracts = NULL;
	cfg->profiles = NULL;
	cfg->aliases = NULL;
	cfg->n_devices = cfg->n_contracts = cfg->n_profiles = cfg->n_aliases = 0;
}

int pen_key_find(const struct pen_key *k, size_t n, const char *name, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (strlen(k[i].name) == len && !memcmp(k[i].name, name, len))
			return (int)i;
	return -ENOENT;
}

static int set_node_key(struct pen_config *cfg, int i, const char *value, struct pen_err *err)
{
	char old[sizeof(cfg->socket)];
	const struct pen_key *k = &pen_config_keys[i];

	memcpy(old, i == PEN_CONFIG_socket ? cfg->socket : cfg->runtime_dir, sizeof(old));
	int r = pen_key_set(k, cfg, value, err);
	if (r < 0)
		return r;
	if (i == PEN_CONFIG_socket && strlen(cfg->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		memcpy(cfg->socket, old, sizeof(old));
		return pen_err_x(err, -EINVAL, _("socket: the path is too long for a socket; allowed: %s"), _(k->allowed));
	}
	if (i == PEN_CONFIG_runtime_dir && derive_socket(cfg) < 0) {
		memcpy(cfg->runtime_dir, old, sizeof(old));
		return pen_err_x(err, -EINVAL, _("runtime_dir: the path is too long for a socket in it; allowed: 93 bytes, "
						 "or give socket first"));
	}
	cfg->set_mask |= 1u << i;
	return 0;
}

int pen_config_set(struct pen_config *cfg, const char *key, const char *value, struct pen_err *err)
{
	int i = pen_key_find(pen_config_keys, PEN_CONFIG_MAX_, key, strlen(key));
	if (i >= 0)
		return set_node_key(cfg, i, value, err);
	if (!strncmp(key, "policy.", 7))
		i = pen_key_find(pen_policy_keys, PEN_POLICY_MAX_, key + 7, strlen(key + 7));
	if (i < 0) {
		char shown[64];
		return pen_err_x(err, -ENOENT, _("%s: unknown key; `penstock config show` lists them"),
				 pen_printable(shown, sizeof(shown), key));
	}
	struct pen_key named = pen_policy_keys[i];
	named.name = key;   /* with its section */
	int r = pen_key_set(&named, &cfg->policy, value, err);
	if (r < 0)
		return r;
	cfg->policy_set_mask |= 1u << i;
	pen_config_derive_quantum(&cfg->policy, cfg->policy_set_mask);
	return 0;
}

/* The device's own keys over the node's. */
static struct pen_device_policy effective(const struct pen_config *cfg, const struct pen_config_device *d)
{
	struct pen_device_policy p = cfg->policy;
	char text[PEN_VALUE_TEXT];
	for (size_t i = 0; i < PEN_POLICY_MAX_; i++)
		if (d->set_mask & (1u << i))
			pen_key_set(&pen_policy_keys[i], &p, pen_key_get(&pen_policy_keys[i], &d->policy, text, sizeof(text)),
				    NULL);
	pen_config_derive_quantum(&p, cfg->policy_set_mask | d->set_mask);
	return p;
}

struct pen_device_policy pen_config_policy(const struct pen_config *cfg, const char *const *names, size_t n_names)
{
	for (size_t i = 0; i < cfg->n_devices; i++)
		for (size_t k = 0; k < n_names; k++)
			if (!strcasecmp(cfg->devices[i].device, names[k]))
				return effective(cfg, &cfg->devices[i]);
	return cfg->policy;
}

static int diff_keys(const struct pen_key *k, size_t n, const void *old, const void *new, const char *prefix,
		     const struct pen_config_row *restart, struct pen_diff *d)
{
	for (size_t i = 0; i < n; i++) {
		char from[PEN_CONFIG_PATH_MAX + 1], to[PEN_CONFIG_PATH_MAX + 1];
		pen_key_get(&k[i], old, from, sizeof(from));
		pen_key_get(&k[i], new, to, sizeof(to));
		if (!strcmp(from, to))
			continue;
		int r = pen_diff_add(d, restart && restart[i].restart, from, to, "%s%s", prefix, k[i].name);
		if (r < 0)
			return r;
	}
	return 0;
}

static const struct pen_config_device *find_device(const struct pen_config *cfg, const char *name)
{
	for (size_t i = 0; i < cfg->n_devices; i++)
		if (!strcasecmp(cfg->devices[i].device, name))
			return &cfg->devices[i];
	return NULL;
}

/* Compares what holds for the device, so that an entry that repeats the node's policy is no difference. */
static int diff_device(const struct pen_config *old, const struct pen_config *new, const char *name, struct pen_diff *d)
{
	const struct pen_config_device *from = find_device(old, name), *to = find_device(new, name);
	struct pen_device_policy p = from ? effective(old, from) : old->policy;
	struct pen_device_policy q = to ? effective(new, to) : new->policy;
	char prefix[PEN_DEVICE_MAX + 32];
	snprintf(prefix, sizeof(prefix), _("device '%s': "), name);
	return diff_keys(pen_policy_keys, PEN_POLICY_MAX_, &p, &q, prefix, NULL, d);
}

const struct pen_config_contract *pen_config_find_contract(const struct pen_config *cfg, const char *name)
{
	for (size_t i = 0; i < cfg->n_contracts; i++)
		if (!strcmp(cfg->contracts[i].contract.name, name))
			return &cfg->contracts[i];
	return NULL;
}

static int diff_contracts(const struct pen_config *old, const struct pen_config *new, struct pen_diff *d)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < old->n_contracts; i++) {
		const struct pen_config_contract *c = &old->contracts[i];
		const struct pen_config_contract *now = pen_config_find_contract(new, c->contract.name);
		char prefix[PEN_NAME_MAX + 32];
		snprintf(prefix, sizeof(prefix), _("contract '%s': "), c->contract.name);
		r = now ? pen_contract_diff(&c->contract, &now->contract, prefix, d) :
			  pen_diff_add(d, false, c->origin, "", _("contract '%s'"), c->contract.name);
	}
	for (size_t i = 0; r == 0 && i < new->n_contracts; i++) {
		const struct pen_config_contract *c = &new->contracts[i];
		if (!pen_config_find_contract(old, c->contract.name))
			r = pen_diff_add(d, false, "", c->origin, _("contract '%s'"), c->contract.name);
	}
	return r;
}

int pen_config_diff(const struct pen_config *old, const struct pen_config *new, struct pen_diff *d)
{
	int r = diff_keys(pen_config_keys, PEN_CONFIG_MAX_, old, new, "", rows, d);
	if (r == 0)
		r = diff_keys(pen_policy_keys, PEN_POLICY_MAX_, &old->policy, &new->policy, "policy.", NULL, d);
	for (size_t i = 0; r == 0 && i < old->n_devices; i++)
		r = diff_device(old, new, old->devices[i].device, d);
	for (size_t i = 0; r == 0 && i < new->n_devices; i++)
		if (!find_device(old, new->devices[i].device))
			r = diff_device(old, new, new->devices[i].device, d);
	if (r == 0)
		r = diff_contracts(old, new, d);
	return r == 0 ? pen_config_diff_kube(old, new, d) : r;
}

/* "section.key" lines under a "section:" line; the list keeps the keys of a section together. */
static void print_node(const struct pen_config *cfg, FILE *out)
{
	char section[32] = "", text[PEN_CONFIG_PATH_MAX + 1];
	for (size_t i = 0; i < PEN_CONFIG_MAX_; i++) {
		const struct pen_key *k = &pen_config_keys[i];
		const char *dot = strchr(k->name, '.');
		int len = dot ? (int)(dot - k->name) : 0;
		if (dot && strncmp(section, k->name, (size_t)len)) {
			snprintf(section, sizeof(section), "%.*s", len, k->name);
			fprintf(out, "%s:\n", section);
		}
		fprintf(out, "%s%s: ", dot ? "  " : "", dot ? dot + 1 : k->name);
		pen_yaml_put_scalar(out, pen_key_get(k, cfg, text, sizeof(text)));
		fputs(cfg->set_mask & (1u << i) ? "\n" : "   # default\n", out);
		if (i == PEN_CONFIG_kube_bundles)   /* the section's last key: its lists follow */
			pen_config_print_kube(cfg, out);
	}
}

static void print_policy(const struct pen_device_policy *p, uint32_t set_mask, bool all, FILE *out, int indent)
{
	char text[PEN_VALUE_TEXT];
	for (size_t i = 0; i < PEN_POLICY_MAX_; i++) {
		bool set = set_mask & (1u << i);
		if (!set && !all)
			continue;
		fprintf(out, "%*s%s: ", indent, "", pen_policy_keys[i].name);
		pen_yaml_put_scalar(out, pen_key_get(&pen_policy_keys[i], p, text, sizeof(text)));
		fputs(set ? "\n" : "   # default\n", out);
	}
}

int pen_config_print(const struct pen_config *cfg, FILE *out)
{
	const uint32_t quantum = 1u << PEN_POLICY_quantum;
	char text[PEN_VALUE_TEXT];
	print_node(cfg, out);
	fputs("policy:\n", out);
	print_policy(&cfg->policy, cfg->policy_set_mask, true, out, 2);
	fputs(cfg->n_devices ? "devices:\n" : "devices: []   # default\n", out);
	for (size_t i = 0; i < cfg->n_devices; i++) {
		fputs("  - device: ", out);
		pen_yaml_put_scalar(out, cfg->devices[i].device);
		fputc('\n', out);
		print_policy(&cfg->devices[i].policy, cfg->devices[i].set_mask, false, out, 4);
		struct pen_device_policy p = effective(cfg, &cfg->devices[i]);
		if (!(cfg->devices[i].set_mask & quantum) && p.quantum_ns != cfg->policy.quantum_ns) {
			pen_value_format_quantum(&p.quantum_ns, text, sizeof(text));
			fprintf(out, "    quantum: %s   # default\n", text);
		}
	}
	fputs(cfg->n_contracts ? "contracts:\n" : "contracts: []   # default\n", out);
	for (size_t i = 0; i < cfg->n_contracts; i++) {
		fprintf(out, "  # %s\n", cfg->contracts[i].origin);
		pen_contract_print_item(&cfg->contracts[i].contract, out, 4, false);
	}
	return ferror(out) ? -EIO : 0;
}
