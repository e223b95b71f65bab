/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock-cuda-trim SHIM DRIVER OUT: copies our libcuda.so.1 without the names that the driver beside it does not export.
 *
 * Programs take the presence of a name for the presence of what it does: a runtime that finds cuGetProcAddress_v2 asks nothing
 * else. So a name that an older driver lacks must not be found in ours. In the copy its symbol is made undefined, which the
 * loader passes over; all else, the hash table included, stays as it is. The copy appears under its name complete or not at all.
 * A program of its own, run before a tenant's; the file of the driver is only read. ELF of 64 bits, little endian.
 */
#include "base/auto.h"
#include "base/log.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct image {
	const char *path;
	unsigned char *bytes;
	size_t size;
	uint16_t machine;
	Elf64_Sym *symbols;
	uint32_t nsymbols;
	const char *strings;
	size_t nstrings;
};

static int fail(const char *path, const char *what)
{
	pen_log(PEN_LOG_ERROR, "%s: %s", path, what);
	return -1;
}

/* @n objects of @size at an offset of the file; NULL: not all of it is there, or not aligned. */
static void *at(const struct image *m, uint64_t offset, uint64_t n, size_t size)
{
	if (offset > m->size || n > (m->size - offset) / size || offset % (size > 8 ? 8 : size))
		return NULL;
	return m->bytes + offset;
}

/* Of an address in the loaded image: where it lies in the file. 0: nowhere. */
static uint64_t in_file(const Elf64_Phdr *p, unsigned n, uint64_t address)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i].p_type == PT_LOAD && address >= p[i].p_vaddr && address - p[i].p_vaddr < p[i].p_filesz)
			return p[i].p_offset + (address - p[i].p_vaddr);
	return 0;
}

/* The number of symbols is written nowhere: the last one that the hash table reaches is the last one. 0: it cannot be read. */
static uint32_t count_gnu(const struct image *m, uint64_t offset)
{
	const uint32_t *head = at(m, offset, 4, sizeof(uint32_t));
	if (!head)
		return 0;
	uint32_t nbuckets = head[0], first = head[1], last = 0;
	uint64_t buckets = offset + 16 + (uint64_t)head[2] * 8;
	const uint32_t *bucket = at(m, buckets, nbuckets, sizeof(uint32_t));
	if (!bucket)
		return 0;
	for (uint32_t i = 0; i < nbuckets; i++)
		last = bucket[i] > last ? bucket[i] : last;
	if (last < first)
		return first;
	for (uint64_t chains = buckets + (uint64_t)nbuckets * 4;; last++) {
		const uint32_t *chain = at(m, chains + (uint64_t)(last - first) * 4, 1, sizeof(uint32_t));
		if (!chain || last == UINT32_MAX)
			return 0;
		if (*chain & 1)
			return last + 1;
	}
}

static int find_symbols(struct image *m, const Elf64_Phdr *p, unsigned n)
{
	uint64_t symtab = 0, strtab = 0, strsz = 0, gnu = 0, sysv = 0;
	for (unsigned i = 0; i < n; i++) {
		if (p[i].p_type != PT_DYNAMIC)
			continue;
		const Elf64_Dyn *d = at(m, p[i].p_offset, p[i].p_filesz / sizeof(*d), sizeof(*d));
		for (uint64_t k = 0; d && k < p[i].p_filesz / sizeof(*d) && d[k].d_tag != DT_NULL; k++) {
			uint64_t *to = d[k].d_tag == DT_SYMTAB ? &symtab : d[k].d_tag == DT_STRTAB ? &strtab :
				       d[k].d_tag == DT_GNU_HASH ? &gnu : d[k].d_tag == DT_HASH ? &sysv : NULL;
			if (to)
				*to = in_file(p, n, d[k].d_un.d_ptr);
			else if (d[k].d_tag == DT_STRSZ)
				strsz = d[k].d_un.d_val;
		}
	}
	if (gnu) {
		m->nsymbols = count_gnu(m, gnu);
	} else {
		const uint32_t *head = at(m, sysv, 2, sizeof(uint32_t));
		m->nsymbols = sysv && head ? head[1] : 0;
	}
	m->symbols = at(m, symtab, m->nsymbols, sizeof(Elf64_Sym));
	m->strings = at(m, strtab, strsz, 1);
	m->nstrings = strsz;
	if (!symtab || !strtab || !strsz || !m->nsymbols || !m->symbols || !m->strings || m->strings[strsz - 1])
		return fail(m->path, "has no table of dynamic symbols that can be read");
	return 0;
}

/* Reads a library into memory of our own. */
static int load(const char *path, struct image *ret)
{
	struct stat st;
	struct image m = { .path = path };
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(Elf64_Ehdr))
		return fail(path, "is no library");
	m.size = (size_t)st.st_size;
	m.bytes = mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (m.bytes == MAP_FAILED)
		return fail(path, strerror(errno));
	const Elf64_Ehdr *e = (const Elf64_Ehdr *)(const void *)m.bytes;
	if (memcmp(e->e_ident, ELFMAG, SELFMAG) || e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_ident[EI_DATA] != ELFDATA2LSB ||
	    e->e_type != ET_DYN || e->e_phentsize != sizeof(Elf64_Phdr))
		return fail(path, "is no ELF library of 64 bits");
	m.machine = e->e_machine;
	const Elf64_Phdr *p = at(&m, e->e_phoff, e->e_phnum, sizeof(*p));
	if (!p)
		return fail(path, "is cut off");
	*ret = m;
	return find_symbols(ret, p, e->e_phnum);
}

static const char *name_of(const struct image *m, const Elf64_Sym *s)
{
	return s->st_name < m->nstrings ? m->strings + s->st_name : "";
}

/* What dlsym() would find. */
static bool is_exported(const Elf64_Sym *s)
{
	return s->st_shndx != SHN_UNDEF && s->st_value && ELF64_ST_BIND(s->st_info) != STB_LOCAL &&
	       ELF64_ST_VISIBILITY(s->st_other) != STV_HIDDEN && ELF64_ST_VISIBILITY(s->st_other) != STV_INTERNAL;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Return: how many names went; negative: not even one of ours is the driver's, or out of memory. */
static int trim(struct image *shim, const struct image *driver)
{
	pen_auto_free const char **names = calloc(driver->nsymbols, sizeof(*names));
	size_t n = 0;
	int kept = 0, gone = 0;
	if (!names)
		return fail(driver->path, strerror(errno));
	for (uint32_t i = 1; i < driver->nsymbols; i++)
		if (is_exported(&driver->symbols[i]))
			names[n++] = name_of(driver, &driver->symbols[i]);
	qsort(names, n, sizeof(*names), compare);
	for (uint32_t i = 1; i < shim->nsymbols; i++) {
		Elf64_Sym *s = &shim->symbols[i];
		const char *name = name_of(shim, s);
		if (!is_exported(s) || strncmp(name, "cu", 2) != 0)
			continue;
		if (bsearch(&name, names, n, sizeof(*names), compare)) {
			kept++;
			continue;
		}
		gone++;
		s->st_shndx = SHN_UNDEF;
		s->st_value = 0;
		s->st_size = 0;
		s->st_info = ELF64_ST_INFO(STB_WEAK, STT_NOTYPE);
	}
	return kept ? gone : fail(driver->path, "is no CUDA driver: it exports none of the names");
}

static int write_all(int fd, const unsigned char *bytes, size_t n)
{
	while (n) {
		ssize_t w = write(fd, bytes, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return -1;
		bytes += w;
		n -= (size_t)w;
	}
	return 0;
}

static int store(const struct image *m, const char *out)
{
	char temporary[PATH_MAX];
	if (snprintf(temporary, sizeof(temporary), "%s.XXXXXX", out) >= (int)sizeof(temporary))
		return fail(out, strerror(ENAMETOOLONG));
	pen_auto_close int fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return fail(temporary, strerror(errno));
	if (write_all(fd, m->bytes, m->size) == 0 && fchmod(fd, 0755) == 0 && rename(temporary, out) == 0)
		return 0;
	int code = errno;
	unlink(temporary);
	return fail(out, strerror(code));
}

int main(int argc, char **argv)
{
	struct image shim, driver;
	pen_log_set_prefix("penstock-cuda-trim");
	if (argc != 4) {
		pen_log(PEN_LOG_ERROR, "usage: penstock-cuda-trim SHIM DRIVER OUT");
		return 2;
	}
	if (load(argv[1], &shim) < 0 || load(argv[2], &driver) < 0)
		return 1;
	if (shim.machine != driver.machine) {
		fail(argv[2], "is for another kind of machine than the shim");
		return 1;
	}
	if (trim(&shim, &driver) < 0 || store(&shim, argv[3]) < 0)
		return 1;
	return 0;
}
