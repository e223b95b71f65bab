/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damaged pages: whatever a tenant writes into its ledger and signal, or memory does to terms, readers stay in bounds and
 * the account's laws hold. Input: first byte the kind of page, then pairs of (offset, byte) written over a good page.
 */
#include "board/hist.h"
#include "board/mem.h"
#include "board/page.h"
#include "board/terms.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void damage(void *page, size_t bytes, const uint8_t *data, size_t size)
{
	unsigned char *p = page;
	for (size_t i = 0; i + 2 < size; i += 3)
		p[((size_t)data[i] << 8 | data[i + 1]) % bytes] = data[i + 2];
}

static void read_terms(struct pen_terms_page *page, const uint8_t *data, size_t size)
{
	struct pen_terms t = { .flags = 3 }, last = { 0 };
	for (int i = 0; i < 3; i++)
		pen_terms_publish(page, &t);
	pen_terms_read(page, &last);
	damage(page, sizeof(*page), data, size);
	struct pen_terms before = last;
	int r = pen_terms_read(page, &last);
	if (r != 1 && memcmp(&before, &last, sizeof(last)) != 0)
		abort();
	/* The writer is not confused by its own page for good either. */
	pen_terms_publish(page, &t);
	if (pen_terms_read(page, &last) < 0)
		abort();
}

static void use_ledger(struct pen_ledger_page *l, const uint8_t *data, size_t size)
{
	pen_ledger_claim(l, 1, 1);
	pen_mem_charge(l, 0, 1000, UINT64_MAX, 0);
	damage(l, sizeof(*l), data, size);
	struct pen_mem_sum before, after;
	uint64_t cap = UINT64_C(1) << 40;
	pen_mem_read(l, &before);
	int r = pen_mem_charge(l, 0, 4096, cap, 0);
	pen_mem_read(l, &after);
	if (r == 0 ? after.used_bytes != before.used_bytes + 4096 || after.used_bytes > cap : r != -ENOMEM)
		abort();
	if (pen_mem_uncharge(l, 0, UINT64_MAX) > after.used_bytes)
		abort();
	pen_mem_read(l, &after);
	if (before.used_bytes < cap && after.used_bytes > before.used_bytes + 4096)
		abort();
	uint64_t sum = 0, freed;
	r = pen_mem_square(l, 1, &freed);
	for (unsigned i = 0; i < PEN_LEDGER_CLIENTS; i++)
		sum += l->client[i].charged_bytes;
	if (r == 0 && l->mem_used_bytes != sum)
		abort();
	pen_ledger_claim(l, 2, 1);
	struct pen_hist_snap s, none = { 0 };
	pen_hist_take(&l->response, &s);
	pen_hist_delta(&s, &none, &s);
	uint64_t q = pen_hist_quantile(&s, 500000);
	if (q > pen_hist_quantile(&s, 990000) || q > pen_hist_lower_ns(PEN_HIST_BUCKETS))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	static const uint8_t boot[16] = { 1 };
	enum pen_page_kind kind = (enum pen_page_kind)(data[0] % PEN_PAGE_KIND_MAX_);
	struct pen_page_id id = { .slot = 1, .device_id = 1, .instance = 1 };
	memcpy(id.boot_id, boot, sizeof(boot));
	int fd;
	void *map;
	if (pen_page_create(kind, &id, &fd, &map, NULL) < 0)
		return 0;
	if (kind == PEN_PAGE_TERMS)
		read_terms(map, data + 1, size - 1);
	else if (kind == PEN_PAGE_LEDGER)
		use_ledger(map, data + 1, size - 1);
	else
		damage(map, PEN_SIGNAL_BYTES, data + 1, size - 1);
	struct pen_page_head head;
	int r = pen_page_verify(fd, kind, boot, 0, &head, NULL);
	if (r == 0 && (head.major != PEN_BOARD_MAJOR || memcmp(head.boot_id, boot, 16) != 0))
		abort();
	if (r != 0 && r != -EPROTO && r != -ESTALE)
		abort();
	pen_page_unmap(map, kind);
	close(fd);
	return 0;
}
