/* SPDX-License-Identifier: Apache-2.0 */
/* Any text through the four parsers of base/units.h; what is accepted must survive being formatted and read again. */
#include "base/units.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Formatters keep three digits: half a per cent, and one unit for the values that are printed whole. */
static void check_close(uint64_t want, uint64_t got)
{
	uint64_t diff = got > want ? got - want : want - got;
	if (diff > want / 200 + 1)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	if (!text)
		return 0;
	if (size)
		memcpy(text, data, size);
	text[size] = 0;

	char buf[32];
	uint64_t v, again;
	uint32_t ppm;
	/* Rounding up to three digits may leave the range of 64 bits, so values near its end are not read again. */
	const uint64_t top = UINT64_MAX / 2;
	if (pen_parse_bytes(text, &v) == 0 && v < top) {
		if (pen_parse_bytes(pen_format_bytes(buf, sizeof(buf), v), &again) < 0)
			abort();
		check_close(v, again);
	}
	if (pen_parse_rate(text, &v) == 0 && v < top) {
		if (pen_parse_rate(pen_format_rate(buf, sizeof(buf), v), &again) < 0)
			abort();
		check_close(v, again);
	}
	if (pen_parse_duration(text, &v) == 0 && v < top) {
		if (pen_parse_duration(pen_format_duration(buf, sizeof(buf), v), &again) < 0)
			abort();
		check_close(v, again);
	}
	if (pen_parse_share(text, &ppm) == 0 && (ppm == 0 || ppm > PEN_PPM))
		abort();
	free(text);
	return 0;
}
