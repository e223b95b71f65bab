/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a module holds: kernels with their parameters and cost, and variables.
 *
 * PTX is read as text, as far as names, parameters and variables go; its code is never run. Lines "//
 * simgpu: NAME key=value ..." in it say what a kernel costs (docs/SIMGPU.md); without one a kernel is a
 * built-in if its name is one's, and takes 5 us a block.
 */
#include "simgpu/nvidia/cuda/image.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_NS 5000

/* vectorAdd of _Z9vectorAddPKfS0_Pfi; any other name is its own. */
static void base_name(const char *name, char *ret, size_t room)
{
	if (name[0] == '_' && name[1] == 'Z' && isdigit((unsigned char)name[2])) {
		char *end;
		unsigned long n = strtoul(name + 2, &end, 10);

		if (n && n < room && strlen(end) >= n) {
			memcpy(ret, end, n);
			ret[n] = '\0';
			return;
		}
	}
	strncpy(ret, name, room - 1);
	ret[room - 1] = '\0';
}

CUfunction sim_image_add_function(CUmodule m, const char *name, size_t len)
{
	char base[256];
	CUfunction f, *more = realloc(m->function, (m->functions + 1) * sizeof(*more));

	if (!more)
		return NULL;
	m->function = more;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->name = strndup(name, len);
	if (!f->name) {
		free(f);
		return NULL;
	}
	base_name(f->name, base, sizeof(base));
	f->module = m;
	f->block_ns = BLOCK_NS;
	f->compute = sim_kernel_find(base);
	f->carveout = -1;
	f->block[0] = f->block[1] = f->block[2] = 1;
	f->tag = SIM_TAG_FUNCTION;
	m->function[m->functions++] = f;
	return f;
}

bool sim_image_add_param(CUfunction f, uint32_t offset, uint32_t bytes)
{
	struct sim_param *more = realloc(f->param, (f->params + 1) * sizeof(*more));

	if (!more)
		return false;
	f->param = more;
	f->param[f->params++] = (struct sim_param){ offset, bytes };
	if (offset + bytes > f->param_bytes)
		f->param_bytes = offset + bytes;
	return true;
}

bool sim_image_add_global(CUmodule m, const char *name, size_t len, size_t bytes)
{
	struct sim_global *more = realloc(m->global, (m->globals + 1) * sizeof(*more));
	char *copy = strndup(name, len);

	if (more)
		m->global = more;
	if (!more || !copy) {
		free(copy);
		return false;
	}
	m->global[m->globals++] = (struct sim_global){ .name = copy, .bytes = bytes };
	return true;
}

/* ---- PTX ---- */

static bool in_name(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%';
}

/* Past blanks and comments. */
static const char *skip(const char *p)
{
	for (;;) {
		if (isspace((unsigned char)*p)) {
			p++;
		} else if (p[0] == '/' && p[1] == '/') {
			p += strcspn(p, "\n");
		} else if (p[0] == '/' && p[1] == '*') {
			const char *end = strstr(p + 2, "*/");

			p = end ? end + 2 : p + strlen(p);
		} else {
			return p;
		}
	}
}

static bool word_is(const char *p, size_t n, const char *what)
{
	return strlen(what) == n && memcmp(p, what, n) == 0;
}

/* Bytes of a fundamental type such as .u32; 0 = it is none. */
static uint32_t type_bytes(const char *p, size_t n)
{
	if (word_is(p, n, ".pred"))
		return 1;
	if (n < 3 || p[0] != '.' || !strchr("usbf", p[1]))
		return 0;

	unsigned long bits = strtoul(p + 2, NULL, 10);

	return bits == 8 || bits == 16 || bits == 32 || bits == 64 || bits == 128 ? (uint32_t)bits / 8 : 0;
}

struct variable {
	const char *name;
	size_t name_len;
	uint32_t bytes, align;
};

/* ".align 8 .b8 name[16]": what stands between two commas or before the end; returns where it stopped. */
static const char *read_variable(const char *p, struct variable *v)
{
	uint32_t unit = 0;
	uint64_t count = 1;

	*v = (struct variable){ 0 };
	for (p = skip(p); *p && !strchr(",);={", *p); p = skip(p)) {
		if (*p == '[') {
			char *end;
			uint64_t n = strtoull(p + 1, &end, 0);

			count *= n;
			p = end + (*end == ']');
			if (end == p)
				p++;
			continue;
		}
		const char *w = p++;

		while (in_name(*p))
			p++;
		size_t n = (size_t)(p - w);
		if (word_is(w, n, ".align")) {
			char *end;

			/* The alignment of what a pointer points to is not the parameter's. */
			uint32_t align = (uint32_t)strtoul(skip(p), &end, 0);
			if (!unit)
				v->align = align;
			p = end;
		} else if (*w == '.') {
			uint32_t b = type_bytes(w, n);

			unit = b ? b : unit;
		} else {
			v->name = w;
			v->name_len = n;
		}
	}
	v->bytes = (uint32_t)(unit * (count < 1u << 30 ? count : 0));
	if (v->align < unit)
		v->align = unit;
	return p;
}

static CUresult read_entry(CUmodule m, const char *p, const char **ret_end)
{
	const char *name = skip(p), *end = name;
	uint32_t at = 0;
	CUfunction f;

	while (in_name(*end))
		end++;
	if (end == name)
		return CUDA_ERROR_INVALID_PTX;
	f = sim_image_add_function(m, name, (size_t)(end - name));
	if (!f)
		return CUDA_ERROR_OUT_OF_MEMORY;
	p = skip(end);
	*ret_end = p;
	if (*p != '(')
		return CUDA_SUCCESS;
	do {
		struct variable v;

		p = read_variable(p + 1, &v);
		if (v.name && v.bytes) {
			at = (at + v.align - 1) / v.align * v.align;
			if (!sim_image_add_param(f, at, v.bytes))
				return CUDA_ERROR_OUT_OF_MEMORY;
			at += v.bytes;
		}
	} while (*p == ',');
	*ret_end = p;
	if (*p != ')')
		return CUDA_ERROR_INVALID_PTX;
	/* ".maxntid 128, 1, 1" behind the parameters: what is not said is 1. */
	p = skip(p + 1);
	if (strncmp(p, ".maxntid", 8) == 0 || strncmp(p, ".reqntid", 8) == 0) {
		char *stop;

		f->max_threads = (uint32_t)strtoul(skip(p + 8), &stop, 0);
		while (*(p = skip(stop)) == ',')
			f->max_threads *= (uint32_t)strtoul(skip(p + 1), &stop, 0);
		*ret_end = stop;
	}
	return CUDA_SUCCESS;
}

/* ".global" and ".const" outside of functions. */
static CUresult read_global(CUmodule m, const char *p, const char **ret_end)
{
	struct variable v;

	p = read_variable(p, &v);
	*ret_end = p;
	if (!v.name || !v.bytes)
		return CUDA_SUCCESS;
	return sim_image_add_global(m, v.name, v.name_len, v.bytes) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- "// simgpu: NAME key=value ..." ---- */

static bool set_key(CUfunction f, const char *key, size_t n, const char *value, size_t len)
{
	char text[256];

	if (len >= sizeof(text))
		return false;
	memcpy(text, value, len);
	text[len] = '\0';
	if (word_is(key, n, "compute")) {
		f->compute = sim_kernel_find(text);
		return f->compute || sim_driver.null;
	}
	if (word_is(key, n, "block_ns") && strncmp(text, "arg0*", 5) == 0) {
		f->arg_ns = strtoull(text + 5, NULL, 10);
		return f->arg_ns && f->params && f->param[0].bytes >= 4;
	}
	char *end;
	uint64_t v = strtoull(text, &end, 10);
	if (*end || end == text)
		return false;
	if (word_is(key, n, "block_ns"))
		f->block_ns = v;
	else if (word_is(key, n, "dram"))
		f->dram_bytes = v;
	else if (word_is(key, n, "blocks_per_unit"))
		f->blocks_per_unit = (uint32_t)v;
	else if (word_is(key, n, "regs"))
		f->regs = (uint32_t)v;
	else if (word_is(key, n, "smem"))
		f->smem_bytes = (uint32_t)v;
	else
		return false;
	return true;
}

/*
 * A line that cannot be understood makes the module invalid: a cost that is silently not the one meant
 * would be worse.
 */
static CUresult read_cost(CUmodule m, const char *line)
{
	const char *end = line + strcspn(line, "\r\n");
	const char *p = line + strspn(line, " \t"), *name = p;
	CUfunction f = NULL;

	while (p < end && in_name(*p))
		p++;
	for (uint32_t i = 0; i < m->functions; i++)
		if (word_is(name, (size_t)(p - name), m->function[i]->name))
			f = m->function[i];
	if (!f)
		return CUDA_ERROR_INVALID_PTX;
	for (;;) {
		p += strspn(p, " \t");
		if (p >= end)
			return CUDA_SUCCESS;
		const char *key = p, *eq = memchr(p, '=', (size_t)(end - p));
		if (!eq)
			return CUDA_ERROR_INVALID_PTX;
		p = eq + 1 + strcspn(eq + 1, " \t\r\n");
		if (!set_key(f, key, (size_t)(eq - key), eq + 1, (size_t)(p - eq - 1)))
			return CUDA_ERROR_INVALID_PTX;
	}
}

CUresult sim_image_ptx(CUmodule m, const char *text)
{
	static const char mark[] = "// simgpu:";
	CUresult r = CUDA_SUCCESS;
	int depth = 0;

	if (!strstr(text, ".version") || !strstr(text, ".target"))
		return CUDA_ERROR_INVALID_PTX;
	for (const char *p = skip(text); *p && !r; p = skip(p)) {
		if (*p == '{' || *p == '}') {
			depth += *p++ == '{' ? 1 : -1;
		} else if (*p == '"') {
			p += strcspn(p + 1, "\"\n") + 1;
			p += *p == '"';
		} else if (*p == '.' || in_name(*p)) {
			const char *w = p++;

			while (in_name(*p))
				p++;
			size_t n = (size_t)(p - w);
			if (depth == 0 && word_is(w, n, ".entry"))
				r = read_entry(m, p, &p);
			else if (depth == 0 && (word_is(w, n, ".global") || word_is(w, n, ".const")))
				r = read_global(m, p, &p);
		} else {
			p++;
		}
	}
	/* After the entries, wherever the lines stand. */
	for (const char *p = strstr(text, mark); p && !r; p = strstr(p + 1, mark))
		r = read_cost(m, p + strlen(mark));
	return r;
}
