/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels and variables of what nvcc builds: an ELF file of one architecture (cubin), and the container of
 * several with PTX beside them (fat binary). Only names, parameters and resources are read; the code is
 * never run.
 *
 * A compressed PTX cannot be read here. Where a device would have to use one, the names come from the ELF
 * file of another architecture in the same container, since both are of one source.
 */
#include "simgpu/nvidia/cuda/image.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#define WRAPPER_MAGIC 0x466243b1u /* what a program that was linked by nvcc passes on */
#define FATBIN_MAGIC 0xba55ed50u

struct wrapper {
	uint32_t magic, version;
	const void *data;
};

struct fatbin {
	uint32_t magic;
	uint16_t version, header_bytes;
	uint64_t bytes; /* behind the header */
};

struct entry { /* of a fat binary */
	uint16_t kind, attr; /* 1 PTX, 2 ELF */
	uint32_t header_bytes;
	uint64_t bytes;
	uint32_t packed_bytes, unknown[2], arch, name_at, name_bytes;
	uint64_t flags;
};
#define ENTRY_COMPRESSED (UINT64_C(0x2000) | UINT64_C(0x8000))

/* Of .nv.info: what a record says, and in which form. */
enum { INFO_MAX_THREADS = 0x05, INFO_PARAM = 0x17, INFO_REGS = 0x2f, FORM_SIZED = 0x04 };

struct elf {
	const unsigned char *at;
	const Elf64_Shdr *section;
	unsigned sections;
	const char *names;
	const Elf64_Sym *symbol;
	unsigned symbols;
	const char *symbol_names;
};

static const char *section_name(const struct elf *e, unsigned i)
{
	return e->names + e->section[i].sh_name;
}

static bool open_elf(const unsigned char *p, struct elf *e)
{
	const Elf64_Ehdr *h = (const void *)p;

	if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_ident[EI_CLASS] != ELFCLASS64 ||
	    h->e_machine != 190 || !h->e_shnum || h->e_shstrndx >= h->e_shnum)
		return false;
	*e = (struct elf){ .at = p, .section = (const void *)(p + h->e_shoff), .sections = h->e_shnum };
	e->names = (const char *)p + e->section[h->e_shstrndx].sh_offset;
	for (unsigned i = 0; i < e->sections; i++) {
		const Elf64_Shdr *s = &e->section[i];

		if (s->sh_type != SHT_SYMTAB || s->sh_link >= e->sections)
			continue;
		e->symbol = (const void *)(p + s->sh_offset);
		e->symbols = (unsigned)(s->sh_size / sizeof(Elf64_Sym));
		e->symbol_names = (const char *)p + e->section[s->sh_link].sh_offset;
	}
	return true;
}

/* The architecture stands in another byte since the eighth version of the format. */
static uint32_t elf_arch(const unsigned char *p)
{
	const Elf64_Ehdr *h = (const void *)p;

	return h->e_ident[EI_ABIVERSION] >= 8 ? h->e_flags >> 8 & 0xff : h->e_flags & 0xff;
}

static bool runs_on(uint32_t arch, const struct sim_card *c)
{
	return arch / 10 == c->cc_major && arch % 10 <= c->cc_minor;
}

/* Calls back for each record of a section of attributes. */
static bool each_info(const struct elf *e, unsigned section,
		      bool (*visit)(const struct elf *, uint8_t, const unsigned char *, size_t, void *),
		      void *arg)
{
	const unsigned char *p = e->at + e->section[section].sh_offset,
			    *end = p + e->section[section].sh_size;

	while (p + 4 <= end) {
		uint32_t bytes = p[0] == FORM_SIZED ? p[2] | (uint32_t)p[3] << 8 : 0;

		if (p + 4 + bytes > end || (bytes && !visit(e, p[1], p + 4, bytes, arg)))
			return false;
		p += 4 + bytes;
	}
	return true;
}

static uint32_t word(const unsigned char *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

struct param_list {
	struct sim_param param[1024];
	uint32_t n;
	uint32_t max_threads;
};

static bool kernel_info(const struct elf *e, uint8_t what, const unsigned char *p, size_t n, void *arg)
{
	struct param_list *list = arg;

	(void)e;
	if (what == INFO_MAX_THREADS && n >= 12)
		list->max_threads = word(p) * word(p + 4) * word(p + 8);
	if (what != INFO_PARAM || n < 12)
		return true;

	/*
	 * Index, place in the list, offset; the size is the upper part of the last word. Records come in
	 * any order.
	 */
	uint32_t ordinal = word(p + 4) & 0xffff, offset = word(p + 4) >> 16;
	if (ordinal >= sizeof(list->param) / sizeof(*list->param))
		return false;
	list->param[ordinal] = (struct sim_param){ offset, word(p + 8) >> 18 };
	if (ordinal >= list->n)
		list->n = ordinal + 1;
	return true;
}

static bool module_info(const struct elf *e, uint8_t what, const unsigned char *p, size_t n, void *arg)
{
	CUmodule m = arg;
	uint32_t symbol = n >= 8 ? word(p) : UINT32_MAX;

	if (what != INFO_REGS || symbol >= e->symbols)
		return true;
	CUfunction f = sim_module_function(m, e->symbol_names + e->symbol[symbol].st_name);
	if (f)
		f->regs = word(p + 4);
	return true;
}

/* The section that belongs to a function: a prefix and its name. */
static unsigned section_of(const struct elf *e, const char *prefix, const char *function)
{
	size_t n = strlen(prefix);

	for (unsigned i = 1; i < e->sections; i++)
		if (strncmp(section_name(e, i), prefix, n) == 0 &&
		    strcmp(section_name(e, i) + n, function) == 0)
			return i;
	return 0;
}

static bool add_kernel(CUmodule m, const struct elf *e, const char *name)
{
	struct param_list *list = calloc(1, sizeof(*list));
	CUfunction f = list ? sim_image_add_function(m, name, strlen(name)) : NULL;
	unsigned info = section_of(e, ".nv.info.", name), shared = section_of(e, ".nv.shared.", name);
	bool ok = f && (!info || each_info(e, info, kernel_info, list));

	for (uint32_t i = 0; ok && i < list->n; i++)
		ok = sim_image_add_param(f, list->param[i].offset, list->param[i].bytes);
	if (ok) {
		f->max_threads = list->max_threads;
		f->smem_bytes = shared ? (uint32_t)e->section[shared].sh_size : 0;
	}
	free(list);
	return ok;
}

static bool is_variable(const struct elf *e, const Elf64_Sym *s)
{
	const char *in;

	if (ELF64_ST_TYPE(s->st_info) != STT_OBJECT || !s->st_size || s->st_shndx >= e->sections)
		return false;
	in = section_name(e, s->st_shndx);
	return strncmp(in, ".nv.global", 10) == 0 || strcmp(in, ".nv.constant3") == 0;
}

static CUresult read_elf(CUmodule m, const unsigned char *p)
{
	struct elf e;
	bool ok = true;

	if (!open_elf(p, &e))
		return CUDA_ERROR_INVALID_IMAGE;
	for (unsigned i = 1; i < e.sections && ok; i++)
		if (strncmp(section_name(&e, i), ".text.", 6) == 0)
			ok = add_kernel(m, &e, section_name(&e, i) + 6);
	for (unsigned i = 1; i < e.sections && ok; i++)
		if (strcmp(section_name(&e, i), ".nv.info") == 0)
			ok = each_info(&e, i, module_info, m);
	for (unsigned i = 0; i < e.symbols && ok; i++)
		if (is_variable(&e, &e.symbol[i])) {
			const char *name = e.symbol_names + e.symbol[i].st_name;

			ok = sim_image_add_global(m, name, strlen(name), e.symbol[i].st_size);
		}
	return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

/* ---- the container ---- */

static CUresult read_ptx(CUmodule m, const unsigned char *p, uint64_t bytes)
{
	char *text = strndup((const char *)p, bytes); /* it need not end with a zero */
	CUresult r = text ? sim_image_ptx(m, text) : CUDA_ERROR_OUT_OF_MEMORY;

	free(text);
	return r;
}

static CUresult read_fatbin(CUmodule m, const unsigned char *p, const struct sim_card *c)
{
	const struct fatbin *h = (const void *)p;
	const struct entry *best = NULL, *ptx = NULL, *any = NULL;

	for (uint64_t at = h->header_bytes; at + sizeof(struct entry) <= h->header_bytes + h->bytes;) {
		const struct entry *e = (const void *)(p + at);

		if (!e->header_bytes)
			return CUDA_ERROR_INVALID_IMAGE;
		if (e->kind == 2 && !(e->flags & ENTRY_COMPRESSED)) {
			any = e;
			if (runs_on(e->arch, c) && (!best || e->arch > best->arch))
				best = e;
		}
		if (e->kind == 1 && e->arch <= c->cc_major * 10 + c->cc_minor &&
		    (!ptx || e->arch > ptx->arch))
			ptx = e;
		at += e->header_bytes + e->bytes;
	}
	if (best)
		return read_elf(m, (const unsigned char *)best + best->header_bytes);
	if (ptx && !(ptx->flags & ENTRY_COMPRESSED))
		return read_ptx(m, (const unsigned char *)ptx + ptx->header_bytes, ptx->bytes);
	if (ptx && any)
		return read_elf(m, (const unsigned char *)any + any->header_bytes);
	return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

CUresult sim_image_read(CUmodule m, const void *image, const struct sim_card *c)
{
	const struct wrapper *w = image;
	uint32_t magic;

	memcpy(&magic, image, 4);
	if (magic == WRAPPER_MAGIC) {
		image = w->data;
		memcpy(&magic, image, 4);
	}
	if (magic == FATBIN_MAGIC)
		return read_fatbin(m, image, c);
	if (memcmp(image, ELFMAG, SELFMAG) == 0)
		return runs_on(elf_arch(image), c) ? read_elf(m, image) : CUDA_ERROR_NO_BINARY_FOR_GPU;
	return sim_image_ptx(m, image);
}
