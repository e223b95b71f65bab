/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a contract through libpenstock-contract: prints it, or the code and the parts of what is wrong.
 * Then what needs no file.
 */
#include <penstock/contract.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IS(what, wanted) \
	do { \
		long long got_ = (long long)(what), want_ = (long long)(wanted); \
		if (got_ != want_) { \
			fprintf(stderr, "%d: %s: %lld instead of %lld\n", __LINE__, #what, got_, want_); \
			exit(3); \
		} \
	} while (0)

static void fields(void)
{
	struct penstock_problem p = { .size = sizeof(p) };
	penstock_contract_t *c, *back;
	char buf[160], *text;
	unsigned n = 0;
	IS(penstock_contract_new(&c), 0);
	while (penstock_contract_field(n))
		n++;
	IS(n >= 10, 1);
	IS(penstock_contract_set(c, "memory", "1..2G", &p), 0);
	IS(penstock_contract_get(c, "memory", buf, sizeof(buf)), 0);
	IS(strcmp(buf, "1G..2G"), 0);
	IS(penstock_contract_get(c, "memory", buf, 3), PENSTOCK_ERR_INVALID);
	IS(penstock_contract_set(c, "memory", "nine", &p), PENSTOCK_ERR_INVALID);
	IS(strcmp(p.field, "memory"), 0);
	IS(p.line, 0);
	IS(penstock_contract_set(c, "memry", "9", NULL), PENSTOCK_ERR_INVALID);
	IS(penstock_contract_set(c, "duty", "10%", &p), 0);
	IS(penstock_contract_check(c, &p), PENSTOCK_ERR_INVALID); /* not of class latency */
	IS(penstock_contract_set(c, "duty", NULL, &p), 0);
	IS(penstock_contract_check(c, &p), 0);
	IS(penstock_contract_print(c, 0, &text), 0);
	IS(strcmp(text, "memory: 1G..2G\n"), 0);
	IS(penstock_contract_parse("text", text, strlen(text), &back, &p), 0);
	free(text);
	penstock_contract_free(back);
	penstock_contract_free(c);
	penstock_contract_free(NULL);
	IS(penstock_contract_load("/nonexistent", &c, &p), PENSTOCK_ERR_NOT_FOUND);
	struct penstock_problem old = { .size = 4 };
	IS(penstock_contract_load("/nonexistent", &c, &old), PENSTOCK_ERR_NOT_FOUND);
	IS(old.text[0], 0);
}

int main(int argc, char **argv)
{
	struct penstock_problem p = { .size = sizeof(p) };
	penstock_contract_t *c;
	char *text;
	if (argc < 2)
		return 2;
	fields();
	int r = penstock_contract_load(argv[1], &c, &p);
	if (r) {
		printf("%d\n%s\n%u\n%s\n%s\n", r, p.file, p.line, p.field, p.text);
		return 1;
	}
	if (penstock_contract_print(c, 1, &text))
		return 2;
	fputs(text, stdout);
	free(text);
	penstock_contract_free(c);
	return 0;
}
