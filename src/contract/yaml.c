/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "contract/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

int pen_yaml_err(const struct pen_yaml *y, const yaml_node_t *at, int code, struct pen_err *err, const char *fmt, ...)
{
	char text[PEN_ERR_TEXT];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return pen_err_x(err, code, "%s:%zu: %s", y->origin, at->start_mark.line + 1, text);
}

int pen_yaml_locate(const struct pen_yaml *y, const yaml_node_t *at, int code, struct pen_err *err)
{
	pen_err_prefix(err, "%s:%zu", y->origin, at->start_mark.line + 1);
	if (err)
		err->code = code;
	return code;
}

static void set_origin(struct pen_yaml *y, const char *origin)
{
	size_t len = strlen(origin);
	if (len < sizeof(y->origin))
		memcpy(y->origin, origin, len + 1);
	else   /* the end of a path says more than its beginning */
		snprintf(y->origin, sizeof(y->origin), "...%s", origin + len - (sizeof(y->origin) - 4));
}

/* What libyaml says about text that is not YAML. A reader error carries a byte offset instead of a mark. */
static int syntax_err(const struct pen_yaml *y, const yaml_parser_t *p, const char *data, size_t len, struct pen_err *err)
{
	size_t line = p->problem_mark.line + 1;
	const char *problem = p->problem ? p->problem : "";

	if (p->error == YAML_MEMORY_ERROR)
		return pen_err_sys(err, -ENOMEM, "%s", y->origin);
	if (p->error == YAML_READER_ERROR) {
		line = 1;
		for (size_t i = 0; i < p->problem_offset && i < len; i++)
			line += data[i] == '\n';
	}
	if (p->context)
		return pen_err_x(err, -EINVAL, _("%s:%zu: not YAML: %s, %s"), y->origin, line, p->context, problem);
	return pen_err_x(err, -EINVAL, _("%s:%zu: not YAML: %s"), y->origin, line, problem);
}

/*
 * libyaml needs time quadratic in the depth of [ and { (100,000 bytes of "[" took 14 s), in the number of anchors and
 * in that of % directives. So the events are counted first: they come without look-ahead over more than one possible
 * key of 1024 characters, and what is not a configuration is refused early.
 */
#define DEPTH_MAX 16
#define ANCHORS_MAX 256
#define DIRECTIVES_MAX 16

struct counts {
	unsigned depth, anchors, documents;
};

static int count_event(const struct pen_yaml *y, const yaml_event_t *e, struct counts *n, struct pen_err *err)
{
	size_t line = e->start_mark.line + 1;
	const yaml_char_t *anchor = NULL;

	switch (e->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (++n->documents > 1)
			return pen_err_x(err, -EINVAL, _("%s:%zu: a second YAML document; one per file is allowed"), y->origin, line);
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = e->data.sequence_start.anchor;
		n->depth++;
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = e->data.mapping_start.anchor;
		n->depth++;
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		n->depth--;
		break;
	case YAML_SCALAR_EVENT:
		anchor = e->data.scalar.anchor;
		break;
	default:
		break;
	}
	if (n->depth > DEPTH_MAX)
		return pen_err_x(err, -EINVAL, _("%s:%zu: nested deeper than %d levels"), y->origin, line, DEPTH_MAX);
	if (anchor && ++n->anchors > ANCHORS_MAX)
		return pen_err_x(err, -EINVAL, _("%s:%zu: more than %d anchors"), y->origin, line, ANCHORS_MAX);
	return 0;
}

static int check_bounds(struct pen_yaml *y, yaml_parser_t *p, const char *data, size_t len, struct pen_err *err)
{
	struct counts n = { 0 };
	size_t directives = 0, line = 1;
	bool end = false;
	int r = 0;

	for (size_t i = 0; i < len; i++) {
		directives += data[i] == '%' && (i == 0 || data[i - 1] == '\n' || data[i - 1] == '\r');
		if (directives > DIRECTIVES_MAX)
			return pen_err_x(err, -EINVAL, _("%s:%zu: more than %d lines that begin with %%"), y->origin, line,
					 DIRECTIVES_MAX);
		line += data[i] == '\n';
	}
	while (r == 0 && !end) {
		yaml_event_t e;
		if (!yaml_parser_parse(p, &e))
			return syntax_err(y, p, data, len, err);
		end = e.type == YAML_STREAM_END_EVENT;
		r = count_event(y, &e, &n, err);
		yaml_event_delete(&e);
	}
	return r;
}

static int load_document(struct pen_yaml *y, yaml_parser_t *p, const char *data, size_t len, struct pen_err *err)
{
	if (!yaml_parser_load(p, &y->doc))
		return syntax_err(y, p, data, len, err);
	y->loaded = true;
	return 0;
}

typedef int pass_fn(struct pen_yaml *y, yaml_parser_t *p, const char *data, size_t len, struct pen_err *err);

int pen_yaml_load_bytes(struct pen_yaml *y, const char *origin, const void *data, size_t len, struct pen_err *err)
{
	static pass_fn *const passes[] = { check_bounds, load_document };
	int r = 0;

	memset(y, 0, sizeof(*y));
	set_origin(y, origin);
	if (len > PEN_CONTRACT_FILE_MAX)
		return pen_err_x(err, -EFBIG, _("%s: larger than 1 MiB"), y->origin);
	for (size_t i = 0; r == 0 && i < PEN_ARRAY_LEN(passes); i++) {
		yaml_parser_t p;
		if (!yaml_parser_initialize(&p))
			return pen_err_sys(err, -ENOMEM, "%s", y->origin);
		/* libyaml asserts that there is a pointer, even to nothing. */
		yaml_parser_set_input_string(&p, data ? data : (const void *)"", len);
		r = passes[i](y, &p, data, len, err);
		yaml_parser_delete(&p);
	}
	return r;
}

int pen_yaml_load(struct pen_yaml *y, const char *path, struct pen_err *err)
{
	size_t len = 0, room = PEN_CONTRACT_FILE_MAX + 1;   /* one more than allowed: then it is known to be too long */

	memset(y, 0, sizeof(*y));
	set_origin(y, path);
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return pen_err_sys(err, -errno, "%s", y->origin);
	pen_auto_free char *data = malloc(room);
	if (!data)
		return pen_err_sys(err, -ENOMEM, "%s", y->origin);
	while (len < room) {
		ssize_t n = read(fd, data + len, room - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pen_err_sys(err, -errno, "%s", y->origin);
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return pen_yaml_load_bytes(y, path, data, len, err);
}

void pen_yaml_close(struct pen_yaml *y)
{
	if (y->loaded)
		yaml_document_delete(&y->doc);
	y->loaded = false;
}

yaml_node_t *pen_yaml_root(struct pen_yaml *y)
{
	return y->loaded ? yaml_document_get_root_node(&y->doc) : NULL;
}

const char *pen_yaml_text(const yaml_node_t *node)
{
	if (node->type != YAML_SCALAR_NODE || strlen((const char *)node->data.scalar.value) != node->data.scalar.length)
		return NULL;
	return (const char *)node->data.scalar.value;
}

int pen_yaml_pair(struct pen_yaml *y, const yaml_node_t *map, size_t i, const char **ret_key, yaml_node_t **ret_key_node,
		  yaml_node_t **ret_value, struct pen_err *err)
{
	const yaml_node_pair_t *pair = map->data.mapping.pairs.start + i;

	if (i >= (size_t)(map->data.mapping.pairs.top - map->data.mapping.pairs.start))
		return 0;
	yaml_node_t *key_node = yaml_document_get_node(&y->doc, pair->key);
	const char *key = pen_yaml_text(key_node);
	if (!key)
		return pen_yaml_err(y, key_node, -EINVAL, err, _("a key must be a plain text"));
	*ret_key = key;
	*ret_key_node = key_node;
	*ret_value = yaml_document_get_node(&y->doc, pair->value);
	return 1;
}

yaml_node_t *pen_yaml_item(struct pen_yaml *y, const yaml_node_t *seq, size_t i)
{
	if (i >= (size_t)(seq->data.sequence.items.top - seq->data.sequence.items.start))
		return NULL;
	return yaml_document_get_node(&y->doc, seq->data.sequence.items.start[i]);
}

void pen_yaml_put_scalar(FILE *out, const char *s)
{
	static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./";
	static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./%_-";

	if (*s && strchr(first, *s) && strspn(s, rest) == strlen(s)) {
		fputs(s, out);
		return;
	}
	fputc('"', out);
	for (; *s; s++)
		fprintf(out, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
	fputc('"', out);
}
