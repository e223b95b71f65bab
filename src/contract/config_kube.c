/* SPDX-License-Identifier: Apache-2.0 */
/* The lists below `kubernetes:`: profiles, which are contracts with a number, and names that they go by as well. */
#include "base/auto.h"
#include "contract/alias.h"
#include "contract/config_internal.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define COUNT_ALLOWED N_("1 to 64")
#define CDI_ALLOWED N_("a CDI device such as nvidia.com/gpu=0")
#define RESOURCE_ALLOWED N_("DOMAIN/NAME, DOMAIN outside kubernetes.io, NAME of at most 63 letters, digits and . _ -")

bool pen_dns_name(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		bool edge = i == 0 || i == len - 1 || s[i - 1] == '.' || s[i + 1] == '.';
		bool alnum = islower((unsigned char)s[i]) || isdigit((unsigned char)s[i]);
		if (!alnum && (edge || (s[i] != '-' && s[i] != '.')))
			return false;
	}
	return len > 0;
}

/* What Kubernetes calls a qualified name. */
static bool is_resource(const char *s)
{
	static const char more[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	const char *slash = strchr(s, '/'), *why = NULL;
	char domain[128];
	if (!slash || (size_t)(slash - s) >= sizeof(domain))
		return false;
	snprintf(domain, sizeof(domain), "%.*s", (int)(slash - s), s);
	size_t len = strlen(slash + 1);
	return pen_value_parse_domain(domain, domain, &why) == 0 && len > 0 && len <= 63 &&
	       strspn(slash + 1, more) == len && isalnum((unsigned char)slash[1]) && isalnum((unsigned char)slash[len]);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

struct profile_lines {
	struct pen_config_profile *profile;
	const yaml_node_t *count, *cdi;
};

static int take_text(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t *value,
		     const yaml_node_t **line, const char *allowed, const char **ret_text, struct pen_err *err)
{
	if (*line)
		return pen_yaml_err(y, key_node, -EINVAL, err, _("%s: given twice, first in line %zu"), key,
				    (*line)->start_mark.line + 1);
	*line = key_node;
	*ret_text = pen_yaml_text(value);
	if (!*ret_text)
		return pen_yaml_err(y, value, -EINVAL, err, _("%s: must be a single value; allowed: %s"), key, _(allowed));
	return 0;
}

static int take_count(struct pen_yaml *y, const yaml_node_t *value, const char *text, uint32_t *ret, struct pen_err *err)
{
	char shown[64];
	size_t len = strspn(text, "0123456789");
	unsigned long v = len && len <= 3 && !text[len] ? strtoul(text, NULL, 10) : 0;
	if (v < 1 || v > PEN_CONFIG_SLOTS_MAX)
		return pen_yaml_err(y, value, -EINVAL, err, _("count: '%s' is not valid; allowed: %s"),
				    pen_printable(shown, sizeof(shown), text), _(COUNT_ALLOWED));
	*ret = (uint32_t)v;
	return 0;
}

static int take_cdi(struct pen_yaml *y, const yaml_node_t *value, const char *text, char *ret, size_t n, struct pen_err *err)
{
	static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:/=";
	char shown[64];
	const char *slash = strchr(text, '/'), *equals = strchr(text, '=');
	if (!slash || !equals || equals < slash || !equals[1] || strlen(text) >= n || strspn(text, chars) != strlen(text))
		return pen_yaml_err(y, value, -EINVAL, err, _("cdi: '%s' is not valid; allowed: %s"),
				    pen_printable(shown, sizeof(shown), text), _(CDI_ALLOWED));
	memcpy(ret, text, strlen(text) + 1);
	return 0;
}

/* Keys of a profile that no contract has, and other systems' names for those that it has. */
static int take_more(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t *value,
		     struct pen_contract *c, void *arg, struct pen_err *err)
{
	struct profile_lines *lines = arg;
	const struct pen_alias *a = pen_alias_find(key);
	const char *text = "";
	int r;
	if (!strcmp(key, "count") || (a && a->kind == PEN_ALIAS_SLOTS)) {
		r = take_text(y, key, key_node, value, &lines->count, COUNT_ALLOWED, &text, err);
		if (r == 0)
			r = take_count(y, value, text, &lines->profile->count, err);
		return r < 0 ? r : PEN_YAML_TOOK;
	}
	if (!strcmp(key, "cdi")) {
		r = take_text(y, key, key_node, value, &lines->cdi, CDI_ALLOWED, &text, err);
		if (r == 0)
			r = take_cdi(y, value, text, lines->profile->cdi, sizeof(lines->profile->cdi), err);
		return r < 0 ? r : PEN_YAML_TOOK;
	}
	if (!a)
		return -ENOENT;
	const yaml_node_t *line = NULL;
	r = take_text(y, key, key_node, value, &line, pen_alias_unit(a->kind), &text, err);
	if (r == 0 && (r = pen_alias_set(c, a, text, err)) < 0)
		pen_yaml_locate(y, value, -EINVAL, err);
	return r < 0 ? -EINVAL : pen_alias_field(a->kind);
}

static const struct pen_config_profile *find_profile(const struct pen_config *cfg, const char *name)
{
	for (size_t i = 0; i < cfg->n_profiles; i++)
		if (!strcmp(cfg->profiles[i].contract.name, name))
			return &cfg->profiles[i];
	return NULL;
}

int pen_config_read_profile(struct pen_yaml *y, const yaml_node_t *item, struct pen_config *cfg, struct pen_err *err)
{
	struct pen_config_profile p = { .count = 0 };
	struct profile_lines lines = { .profile = &p };
	struct pen_yaml_more more = { take_more, &lines };
	pen_contract_init(&p.contract);
	int r = pen_contract_from_yaml(y, item, "", &more, &p.contract, err);   /* "": it needs a name */
	if (r < 0)
		return r;
	const char *name = p.contract.name;
	if (!isalnum((unsigned char)name[strlen(name) - 1]))
		return pen_yaml_err(y, item, -EINVAL, err, _("name: '%s' is no name of a resource: it must end in a letter or digit"), name);
	const struct pen_config_profile *other = find_profile(cfg, p.contract.name);
	if (other)
		return pen_yaml_err(y, item, -EINVAL, err, _("name: '%s' is taken by the profile in %s"), other->contract.name,
				    other->origin);
	const struct pen_contract *c = &p.contract;
	if (!p.count && !c->memory.guaranteed && !c->compute.guaranteed && !c->duty_ppm && !c->units.range.guaranteed)
		return pen_yaml_err(y, item, -EINVAL, err, _("count: is missing: of a profile that guarantees nothing any number "
							     "would fit; allowed: %s"), _(COUNT_ALLOWED));
	snprintf(p.origin, sizeof(p.origin), "%s:%zu", y->origin, item->start_mark.line + 1);
	struct pen_config_profile *v = reallocarray(cfg->profiles, cfg->n_profiles + 1, sizeof(*v));
	if (!v)
		return pen_err_sys(err, -ENOMEM, "%s", y->origin);
	cfg->profiles = v;
	v[cfg->n_profiles++] = p;
	return 0;
}

static const struct pen_config_alias *find_alias(const struct pen_config *cfg, const char *resource)
{
	for (size_t i = 0; i < cfg->n_aliases; i++)
		if (!strcmp(cfg->aliases[i].resource, resource))
			return &cfg->aliases[i];
	return NULL;
}

static int add_alias(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t *value,
		     struct pen_config *cfg, struct pen_err *err)
{
	struct pen_config_alias a = { .resource = "" };
	const char *profile = pen_yaml_text(value);
	char shown[64];
	if (!is_resource(key) || strlen(key) >= sizeof(a.resource))
		return pen_yaml_err(y, key_node, -EINVAL, err, _("kubernetes.aliases: '%s' is not valid; allowed: %s"),
				    pen_printable(shown, sizeof(shown), key), _(RESOURCE_ALLOWED));
	if (find_alias(cfg, key))
		return pen_yaml_err(y, key_node, -EINVAL, err, _("kubernetes.aliases: '%s' has an entry already"), key);
	if (!profile || !pen_name_valid(profile))
		return pen_yaml_err(y, value, -EINVAL, err, _("kubernetes.aliases: %s: must be the name of a profile"), key);
	if (cfg->n_aliases == PEN_CONFIG_ALIASES_MAX)
		return pen_yaml_err(y, key_node, -EINVAL, err, _("%s: more than %zu"), "kubernetes.aliases",
				    (size_t)PEN_CONFIG_ALIASES_MAX);
	memcpy(a.resource, key, strlen(key) + 1);
	memcpy(a.profile, profile, strlen(profile) + 1);
	struct pen_config_alias *v = reallocarray(cfg->aliases, cfg->n_aliases + 1, sizeof(*v));
	if (!v)
		return pen_err_sys(err, -ENOMEM, "%s", y->origin);
	cfg->aliases = v;
	v[cfg->n_aliases++] = a;
	return 0;
}

int pen_config_read_aliases(struct pen_yaml *y, const yaml_node_t *map, struct pen_config *cfg, struct pen_err *err)
{
	yaml_node_t *key_node, *value;
	const char *key;
	int r;
	if (map->type != YAML_MAPPING_NODE)
		return pen_yaml_err(y, map, -EINVAL, err, _("kubernetes.aliases: must be a mapping, such as "
							    "\"nvidia.com/gpu: PROFILE\""));
	for (size_t i = 0; (r = pen_yaml_pair(y, map, i, &key, &key_node, &value, err)) > 0; i++)
		if ((r = add_alias(y, key, key_node, value, cfg, err)) < 0)
			break;
	return r;
}

int pen_config_check_aliases(const struct pen_yaml *y, const yaml_node_t *map, const struct pen_config *cfg,
			     struct pen_err *err)
{
	for (size_t i = 0; i < cfg->n_aliases; i++) {
		const struct pen_config_alias *a = &cfg->aliases[i];
		const char *name = a->resource + strlen(cfg->kube_domain) + 1;
		if (!find_profile(cfg, a->profile))
			return pen_yaml_err(y, map, -EINVAL, err, _("kubernetes.aliases: %s: there is no profile '%s'"), a->resource,
					    a->profile);
		if (!strncmp(a->resource, cfg->kube_domain, strlen(cfg->kube_domain)) && name[-1] == '/' && find_profile(cfg, name))
			return pen_yaml_err(y, map, -EINVAL, err, _("kubernetes.aliases: %s: is the name of a profile itself"),
					    a->resource);
	}
	return 0;
}

/* ---- printing and comparing --------------------------------------------------------------------------------------- */

void pen_config_print_kube(const struct pen_config *cfg, FILE *out)
{
	fputs(cfg->n_profiles ? "  profiles:\n" : "  profiles: []   # default\n", out);
	for (size_t i = 0; i < cfg->n_profiles; i++) {
		const struct pen_config_profile *p = &cfg->profiles[i];
		fprintf(out, "    # %s\n", p->origin);
		pen_contract_print_item(&p->contract, out, 6, false);
		if (p->count)
			fprintf(out, "      count: %u\n", p->count);
		if (p->cdi[0]) {
			fputs("      cdi: ", out);
			pen_yaml_put_scalar(out, p->cdi);
			fputc('\n', out);
		}
	}
	fputs(cfg->n_aliases ? "  aliases:\n" : "  aliases: {}   # default\n", out);
	for (size_t i = 0; i < cfg->n_aliases; i++) {
		fputs("    ", out);
		pen_yaml_put_scalar(out, cfg->aliases[i].resource);
		fprintf(out, ": %s\n", cfg->aliases[i].profile);
	}
}

static int diff_profile(const struct pen_config_profile *old, const struct pen_config_profile *new, struct pen_diff *d)
{
	char prefix[PEN_NAME_MAX + 32], from[16] = "", to[16] = "";
	snprintf(prefix, sizeof(prefix), _("profile '%s': "), old->contract.name);
	int r = pen_contract_diff(&old->contract, &new->contract, prefix, d);
	if (old->count)
		snprintf(from, sizeof(from), "%u", old->count);
	if (new->count)
		snprintf(to, sizeof(to), "%u", new->count);
	if (r == 0 && old->count != new->count)
		r = pen_diff_add(d, false, from, to, "%scount", prefix);
	if (r == 0 && strcmp(old->cdi, new->cdi))
		r = pen_diff_add(d, false, old->cdi, new->cdi, "%scdi", prefix);
	return r;
}

int pen_config_diff_kube(const struct pen_config *old, const struct pen_config *new, struct pen_diff *d)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < old->n_profiles; i++) {
		const struct pen_config_profile *p = &old->profiles[i], *now = find_profile(new, p->contract.name);
		r = now ? diff_profile(p, now, d) :
			  pen_diff_add(d, false, p->origin, "", _("profile '%s'"), p->contract.name);
	}
	for (size_t i = 0; r == 0 && i < new->n_profiles; i++)
		if (!find_profile(old, new->profiles[i].contract.name))
			r = pen_diff_add(d, false, "", new->profiles[i].origin, _("profile '%s'"), new->profiles[i].contract.name);
	for (size_t i = 0; r == 0 && i < old->n_aliases; i++) {
		const struct pen_config_alias *a = &old->aliases[i], *now = find_alias(new, a->resource);
		if (!now || strcmp(now->profile, a->profile))
			r = pen_diff_add(d, false, a->profile, now ? now->profile : "", _("alias '%s'"), a->resource);
	}
	for (size_t i = 0; r == 0 && i < new->n_aliases; i++)
		if (!find_alias(old, new->aliases[i].resource))
			r = pen_diff_add(d, false, "", new->aliases[i].profile, _("alias '%s'"), new->aliases[i].resource);
	return r;
}
