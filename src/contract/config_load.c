/* SPDX-License-Identifier: Apache-2.0 */
/* Node configuration from files. A key is found by its "section.key" name, so that sections need no list of their own. */
#include "base/auto.h"
#include "contract/config_internal.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* First position of each key, to refuse a second one and to name the line of both. */
struct seen {
	const yaml_node_t *node[PEN_CONFIG_MAX_];
	const yaml_node_t *section[PEN_CONFIG_MAX_];   /* at the index of the section's first key */
	const yaml_node_t *policy, *devices, *contracts, *profiles, *aliases, *alias_map;
};

static int twice(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t **first,
		 struct pen_err *err)
{
	if (*first)
		return pen_yaml_err(y, key_node, -EINVAL, err, _("%s: given twice, first in line %zu"), key,
				    (*first)->start_mark.line + 1);
	*first = key_node;
	return 0;
}

static int unknown_key(struct pen_yaml *y, const char *section, const char *key, const yaml_node_t *at, struct pen_err *err)
{
	char shown[64];
	return pen_yaml_err(y, at, -EINVAL, err, _("%s%s%s: unknown key; `penstock config show` lists them"), section,
			    *section ? "." : "", pen_printable(shown, sizeof(shown), key));
}

static int not_single(struct pen_yaml *y, const yaml_node_t *at, const struct pen_key *k, struct pen_err *err)
{
	return pen_yaml_err(y, at, -EINVAL, err, _("%s: must be a single value; allowed: %s"), k->name, _(k->allowed));
}

/* Keys of a policy mapping; "device" is allowed and returned if @ret_device is given. */
static int read_policy(struct pen_yaml *y, const yaml_node_t *map, const char *prefix, struct pen_device_policy *p,
		       uint32_t *set_mask, const yaml_node_t **ret_device, struct pen_err *err)
{
	const yaml_node_t *first[PEN_POLICY_MAX_] = { NULL }, *first_device = NULL;
	yaml_node_t *key_node, *value;
	const char *key;
	int r;

	if (map->type != YAML_MAPPING_NODE)
		return pen_yaml_err(y, map, -EINVAL, err, _("%s: must be a mapping of keys"), prefix);
	for (size_t i = 0; (r = pen_yaml_pair(y, map, i, &key, &key_node, &value, err)) > 0; i++) {
		if (ret_device && !strcmp(key, "device")) {
			if ((r = twice(y, "devices.device", key_node, &first_device, err)) < 0)
				return r;
			*ret_device = value;
			continue;
		}
		int k = pen_key_find(pen_policy_keys, PEN_POLICY_MAX_, key, strlen(key));
		if (k < 0)
			return unknown_key(y, prefix, key, key_node, err);
		char dotted[64];
		struct pen_key named = pen_policy_keys[k];
		snprintf(dotted, sizeof(dotted), "%s.%s", prefix, named.name);
		named.name = dotted;
		if ((r = twice(y, dotted, key_node, &first[k], err)) < 0)
			return r;
		const char *text = pen_yaml_text(value);
		if (!text)
			return not_single(y, value, &named, err);
		r = pen_key_set(&named, p, text, err);
		if (r < 0)
			return pen_yaml_locate(y, value, r, err);
		*set_mask |= 1u << k;
	}
	return r;
}

static int read_device(struct pen_yaml *y, const yaml_node_t *item, struct pen_config *cfg, struct pen_err *err)
{
	static const struct pen_key selector = {
		"devices.device", offsetof(struct pen_config_device, device), pen_value_parse_device, pen_value_format_device,
		"any", N_("up to 127 printable characters: UUID, PCI address or model name"),
	};
	struct pen_config_device d = { .policy = cfg->policy };
	const yaml_node_t *at = NULL;
	int r = read_policy(y, item, "devices", &d.policy, &d.set_mask, &at, err);
	if (r < 0)
		return r;
	const char *text = at ? pen_yaml_text(at) : NULL;
	if (!text)
		return pen_yaml_err(y, at ? at : item, -EINVAL, err, _("devices.device: is missing or not a single value; "
								       "allowed: %s"), _(selector.allowed));
	r = pen_key_set(&selector, &d, text, err);
	if (r < 0)
		return pen_yaml_locate(y, at, r, err);
	if (!d.device[0])
		return pen_yaml_err(y, at, -EINVAL, err, _("devices.device: 'any' is what `policy:` is for; allowed: %s"),
				    _(selector.allowed));
	for (size_t i = 0; i < cfg->n_devices; i++)
		if (!strcasecmp(cfg->devices[i].device, d.device))
			return pen_yaml_err(y, at, -EINVAL, err, _("devices.device: '%s' has an entry already"), text);
	struct pen_config_device *v = reallocarray(cfg->devices, cfg->n_devices + 1, sizeof(*v));
	if (!v)
		return pen_err_sys(err, -ENOMEM, "%s", y->origin);
	cfg->devices = v;
	v[cfg->n_devices++] = d;
	return 0;
}

static int add_contract(struct pen_yaml *y, const yaml_node_t *map, const char *deflt_name, struct pen_config *cfg,
			struct pen_err *err)
{
	struct pen_config_contract entry;

	pen_contract_init(&entry.contract);
	int r = pen_contract_from_yaml(y, map, deflt_name, NULL, &entry.contract, err);
	if (r < 0)
		return r;
	const struct pen_config_contract *other = pen_config_find_contract(cfg, entry.contract.name);
	if (other)
		return pen_yaml_err(y, map, -EINVAL, err, _("name: '%s' is taken by the contract in %s"), other->contract.name,
				    other->origin);
	if (cfg->n_contracts == PEN_CONFIG_CONTRACTS_MAX)
		return pen_yaml_err(y, map, -EINVAL, err, _("contracts: more than %d"), PEN_CONFIG_CONTRACTS_MAX);
	snprintf(entry.origin, sizeof(entry.origin), "%s:%zu", y->origin, map->start_mark.line + 1);
	struct pen_config_contract *v = reallocarray(cfg->contracts, cfg->n_contracts + 1, sizeof(*v));
	if (!v)
		return pen_err_sys(err, -ENOMEM, "%s", y->origin);
	cfg->contracts = v;
	v[cfg->n_contracts++] = entry;
	return 0;
}

typedef int item_fn(struct pen_yaml *y, const yaml_node_t *item, struct pen_config *cfg, struct pen_err *err);

static int read_contract(struct pen_yaml *y, const yaml_node_t *item, struct pen_config *cfg, struct pen_err *err)
{
	return add_contract(y, item, "", cfg, err);   /* "": a name is needed and there is none to fall back on */
}

static int read_list(struct pen_yaml *y, const char *key, const yaml_node_t *list, size_t max, item_fn *read,
		     struct pen_config *cfg, struct pen_err *err)
{
	const yaml_node_t *item;
	if (list->type != YAML_SEQUENCE_NODE)
		return pen_yaml_err(y, list, -EINVAL, err, _("%s: must be a list (\"- ...\" lines)"), key);
	for (size_t i = 0; (item = pen_yaml_item(y, list, i)); i++) {
		if (i == max)
			return pen_yaml_err(y, item, -EINVAL, err, _("%s: more than %zu"), key, max);
		int r = read(y, item, cfg, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_map(struct pen_yaml *y, const yaml_node_t *map, const char *section, struct seen *seen,
		    struct pen_config *cfg, struct pen_err *err);

/* A key whose value is a mapping or a list. Return: 1 if it is one. */
static int read_section(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t *value,
			struct seen *seen, struct pen_config *cfg, struct pen_err *err)
{
	int r;
	if (!strcmp(key, "policy")) {
		r = twice(y, key, key_node, &seen->policy, err);
		if (r == 0)
			r = read_policy(y, value, key, &cfg->policy, &cfg->policy_set_mask, NULL, err);
		pen_config_derive_quantum(&cfg->policy, cfg->policy_set_mask);
	} else if (!strcmp(key, "devices")) {
		r = twice(y, key, key_node, &seen->devices, err);
		if (r == 0)
			r = read_list(y, key, value, PEN_CONFIG_DEVICES_MAX, read_device, cfg, err);
	} else if (!strcmp(key, "contracts")) {
		r = twice(y, key, key_node, &seen->contracts, err);
		if (r == 0)
			r = read_list(y, key, value, PEN_CONFIG_CONTRACTS_MAX, read_contract, cfg, err);
	} else {
		size_t len = strlen(key);
		for (size_t i = 0; i < PEN_CONFIG_MAX_; i++)
			if (!strncmp(pen_config_keys[i].name, key, len) && pen_config_keys[i].name[len] == '.') {
				if ((r = twice(y, key, key_node, &seen->section[i], err)) < 0)
					return r;
				if (value->type != YAML_MAPPING_NODE)
					return pen_yaml_err(y, value, -EINVAL, err, _("%s: must be a mapping of keys"), key);
				r = read_map(y, value, key, seen, cfg, err);
				return r < 0 ? r : 1;
			}
		return 0;
	}
	return r < 0 ? r : 1;
}

/* The lists below `kubernetes:`. Return: 1 if it is one. */
static int read_kube(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t *value,
		     struct seen *seen, struct pen_config *cfg, struct pen_err *err)
{
	int r;
	if (!strcmp(key, "profiles")) {
		r = twice(y, "kubernetes.profiles", key_node, &seen->profiles, err);
		if (r == 0)
			r = read_list(y, "kubernetes.profiles", value, PEN_CONFIG_PROFILES_MAX, pen_config_read_profile, cfg, err);
	} else if (!strcmp(key, "aliases")) {
		r = twice(y, "kubernetes.aliases", key_node, &seen->aliases, err);
		seen->alias_map = value;
		if (r == 0)
			r = pen_config_read_aliases(y, value, cfg, err);
	} else
		return 0;
	return r < 0 ? r : 1;
}

/* @section: "" at the top, where sections are allowed; one level below they are not, which bounds the depth. */
static int read_map(struct pen_yaml *y, const yaml_node_t *map, const char *section, struct seen *seen,
		    struct pen_config *cfg, struct pen_err *err)
{
	yaml_node_t *key_node, *value;
	const char *key;
	int r;

	for (size_t i = 0; (r = pen_yaml_pair(y, map, i, &key, &key_node, &value, err)) > 0; i++) {
		char name[64];
		r = !*section ? read_section(y, key, key_node, value, seen, cfg, err) :
		    !strcmp(section, "kubernetes") ? read_kube(y, key, key_node, value, seen, cfg, err) : 0;
		if (r < 0)
			return r;
		if (r > 0)
			continue;
		int n = snprintf(name, sizeof(name), "%s%s%s", section, *section ? "." : "", key);
		int k = (size_t)n < sizeof(name) ? pen_key_find(pen_config_keys, PEN_CONFIG_MAX_, name, (size_t)n) : -ENOENT;
		/* A dot is how messages write a section, not a spelling of its own. */
		if (k < 0 || strchr(key, '.'))
			return unknown_key(y, section, key, key_node, err);
		if ((r = twice(y, name, key_node, &seen->node[k], err)) < 0)
			return r;
		const char *text = pen_yaml_text(value);
		if (!text)
			return not_single(y, value, &pen_config_keys[k], err);
		r = pen_config_set(cfg, name, text, err);
		if (r < 0)
			return pen_yaml_locate(y, value, r, err);
	}
	return r;
}

static int read_config(struct pen_yaml *y, struct pen_config *cfg, struct pen_err *err)
{
	struct seen seen = { 0 };
	const yaml_node_t *root = pen_yaml_root(y);
	if (!root)   /* empty or comments only */
		return 0;
	if (root->type != YAML_MAPPING_NODE)
		return pen_yaml_err(y, root, -EINVAL, err, _("the file must be a mapping of keys, such as \"tick: 5ms\""));
	int r = read_map(y, root, "", &seen, cfg, err);
	return r == 0 && seen.alias_map ? pen_config_check_aliases(y, seen.alias_map, cfg, err) : r;
}

int pen_config_load_bytes(const char *origin, const void *data, size_t len, struct pen_config *ret_cfg,
			  struct pen_err *err)
{
	struct pen_config cfg;
	struct pen_yaml y = { .loaded = false };
	int r = pen_yaml_load_bytes(&y, origin, data, len, err);
	if (r < 0)
		return r;
	pen_config_init(&cfg);
	r = read_config(&y, &cfg, err);
	pen_yaml_close(&y);
	if (r < 0)
		pen_config_free(&cfg);
	else
		*ret_cfg = cfg;
	return r;
}

static int is_contract_file(const struct dirent *e)
{
	const char *dot = strrchr(e->d_name, '.');
	return e->d_name[0] != '.' && dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"));
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);   /* not alphasort, whose order depends on the locale */
}

static int load_contract_file(const char *dir, const char *name, struct pen_config *cfg, struct pen_err *err)
{
	char path[PATH_MAX], stem[NAME_MAX + 1];
	struct stat st;
	struct pen_yaml y = { .loaded = false };

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return pen_err_x(err, -ENAMETOOLONG, _("%s: the path of a file in it is too long"), dir);
	/* A FIFO or a device here would stall the daemon. */
	if (stat(path, &st) < 0)
		return pen_err_sys(err, -errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return pen_err_x(err, -EINVAL, _("%s: not a regular file"), path);
	snprintf(stem, sizeof(stem), "%.*s", (int)(strrchr(name, '.') - name), name);
	int r = pen_yaml_load(&y, path, err);
	if (r < 0)
		return r;
	const yaml_node_t *root = pen_yaml_root(&y);
	r = root ? add_contract(&y, root, stem, cfg, err) : pen_err_x(err, -EINVAL, _("%s:1: the file holds no contract"),
								     y.origin);
	pen_yaml_close(&y);
	return r;
}

static int load_dir(const char *dir, struct pen_config *cfg, struct pen_err *err)
{
	struct dirent **list;
	int n = scandir(dir, &list, is_contract_file, by_name), r = 0;
	if (n < 0)
		return errno == ENOENT ? 0 : pen_err_sys(err, -errno, "%s", dir);
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = load_contract_file(dir, list[i]->d_name, cfg, err);
		free(list[i]);
	}
	free(list);
	return r;
}

/* The file into @cfg, which holds defaults. An absent file is none only where nobody named it. */
static int load_file(const char *path, struct pen_config *cfg, struct pen_err *err)
{
	struct pen_yaml y = { .loaded = false };
	int r = pen_yaml_load(&y, path ? path : PEN_CONFIG_FILE, err);
	if (r == -ENOENT && !path) {
		if (err)
			*err = (struct pen_err)PEN_ERR_INIT;
		return 0;
	}
	if (r < 0)
		return r;
	r = read_config(&y, cfg, err);
	pen_yaml_close(&y);
	return r;
}

int pen_config_load(const char *path, const char *dir, struct pen_config *ret_cfg, struct pen_err *err)
{
	const char *file = path ? path : PEN_CONFIG_FILE;
	const char *slash = strrchr(file, '/');
	char beside[PATH_MAX];
	struct pen_config cfg;

	int n = snprintf(beside, sizeof(beside), "%.*scontracts.d", slash ? (int)(slash - file + 1) : 0, file);
	if (!dir && (size_t)n >= sizeof(beside))
		return pen_err_x(err, -ENAMETOOLONG, _("%s: the path is too long"), file);
	pen_config_init(&cfg);
	int r = load_file(path, &cfg, err);
	if (r == 0)
		r = load_dir(dir ? dir : beside, &cfg, err);
	if (r < 0)
		pen_config_free(&cfg);
	else
		*ret_cfg = cfg;
	return r;
}
