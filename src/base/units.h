/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_UNITS_H
#define PEN_BASE_UNITS_H
/*
 * Quantities as people write them. One parser each for bytes, rates, shares and durations; contract files, the command
 * line and the control API all use these. Spaces around the number are not accepted; a sign, NaN or overflow is -EINVAL
 * or -ERANGE. Sizes are binary (G = GiB, also "GiB", "Gi"); bandwidth is decimal, as vendors quote it (10^9 bytes/s).
 */
#include <stddef.h>
#include <stdint.h>

#define PEN_KIB UINT64_C(1024)
#define PEN_MIB (PEN_KIB * 1024)
#define PEN_GIB (PEN_MIB * 1024)

/* Shares are kept in parts per million of one device: exact for per cent with four decimals. */
#define PEN_PPM UINT32_C(1000000)

int pen_parse_bytes(const char *s, uint64_t *ret_bytes);       /* "512M", "4G", "4GiB", "1073741824", "1.5G" */
int pen_parse_share(const char *s, uint32_t *ret_ppm);         /* "30%", "0.5%": > 0 and <= 100 % */
int pen_parse_rate(const char *s, uint64_t *ret_bytes_per_s);  /* "6GB/s", "500MB/s", "6" (GB/s) */
int pen_parse_duration(const char *s, uint64_t *ret_ns);       /* "20ms", "1.5s", "250us", "2m", "1h", "100ns" */

/* Formatters write at most @n bytes, always terminated, and return @buf. Units are chosen for reading. */
char *pen_format_bytes(char *buf, size_t n, uint64_t bytes);     /* "512M", "3.9G" */
char *pen_format_share(char *buf, size_t n, uint32_t ppm);       /* "30%", "12.5%" */
char *pen_format_rate(char *buf, size_t n, uint64_t bytes_per_s);
char *pen_format_duration(char *buf, size_t n, uint64_t ns);     /* "20ms", "1.25s", "730us" */

#endif
