/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as a card file: refused with a line that says why, or a card whose every number lies in its range. */
#include "model/card.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pen_card card;
	struct pen_err err = PEN_ERR_INIT;

	memset(&card, 0x5a, sizeof(card));
	if (pen_card_parse((const char *)data, size, "fuzz.card", &card, &err) < 0) {
		if (!err.code || strncmp(err.text, "fuzz.card:", 10))
			abort();
		return 0;
	}
	if (card.units < 1 || card.units > 1024 || card.blocks_per_unit < 1 || card.blocks_per_unit > 32 || card.slice_ns < 1000 ||
	    !card.dram_bytes_per_s || !card.dram_efficiency_ppm || !card.pcie_bytes_per_s || strnlen(card.name, sizeof(card.name)) >= 96)
		abort();
	return 0;
}
