/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes docs/config-reference.md to stdout, or with an argument compares that file with what it should be.
 * Exit: 0 written or up to date; 1 not.
 */
#include "base/auto.h"
#include "contract/alias.h"
#include "contract/config.h"

#include <string.h>

static void write_contract(FILE *out)
{
	const struct pen_contract_field *f;
	fputs("## Contracts\n\n"
	      "A contract file is a YAML mapping of these fields; so is each entry of `contracts:`. As options of\n"
	      "`penstock run` they are written `--FIELD VALUE`, and `penstock set TENANT --FIELD VALUE` changes those marked live.\n"
	      "A tenant without any is accounted, unlimited and of class `normal`.\n\n"
	      "| spelling | guaranteed | cap |\n|---|---|---|\n"
	      "| `X` | X | X |\n| `X..Y` | X | Y |\n| `X..` | X | none: may borrow everything |\n| `..Y` | nothing | Y |\n"
	      "| `unlimited` | nothing | none |\n\n"
	      "G is GiB, GB/s is 10^9 bytes per second. A lower bound without a unit takes the upper one's: `1..2G`, `30..60%`.\n\n"
	      "| field | default | allowed | live | meaning |\n|---|---|---|---|---|\n", out);
	for (size_t i = 0; (f = pen_contract_field(i)); i++)
		fprintf(out, "| `%s` | %s | %s | %s | %s |\n", f->name, f->deflt, f->allowed, f->live ? "yes" : "no", f->help);
	fputs("\n`duty` needs class `latency` and lies within the compute cap. Admission adds up the guarantees on a device:\n"
	      "memory against its size less `reserve`, compute (for class `latency` the larger of guarantee and duty) against 100 %,\n"
	      "and units. What cannot be kept is refused with the names of those who hold it. Of bandwidth there are only caps: `..Y`.\n\n", out);
}

static void write_node(FILE *out)
{
	struct pen_config_row row;
	fputs("## Node\n\n"
	      "`/etc/penstock/penstock.yaml`. Every key is optional. A key `a.b` is `b` below the section `a:`. Keys marked restart\n"
	      "take effect when the daemon is started again; the others on reload.\n\n"
	      "| key | default | allowed | restart | meaning |\n|---|---|---|---|---|\n", out);
	for (size_t i = 0; pen_config_row(i, &row); i++)
		fprintf(out, "| `%s` | %s | %s | %s | %s |\n", row.key, row.deflt, row.allowed, row.restart ? "yes" : "no",
			row.help);
	fprintf(out,
		"\n`devices:` is a list of at most %d entries `device: UUID, PCI address or model name` with keys of `policy:` that\n"
		"differ for that device. `contracts:` is a list of contracts with a `name`. Each file `contracts.d/*.yaml` beside\n"
		"penstock.yaml holds one more contract, by default named as the file. At most %d contracts a node.\n\n"
		"```yaml\ntick: 5ms\nhttp:\n  listen: 127.0.0.1:9747\npolicy:\n  mode: exclusive\n  quantum: 4ms\ndevices:\n"
		"  - device: GPU-8c1f2a90\n    mode: corun\n    reserve: 512M\ncontracts:\n  - name: camera\n    class: latency\n"
		"    sla: 20ms\n    duty: 40%%\n    memory: 1G..2G\n  - name: training\n    class: besteffort\n    memory: ..4G\n```\n",
		PEN_CONFIG_DEVICES_MAX, PEN_CONFIG_CONTRACTS_MAX);
}

static void write_kubernetes(FILE *out)
{
	fprintf(out,
		"\n## Kubernetes\n\n"
		"`kubernetes.profiles` is a list of at most %d profiles. A profile is a contract with a `name`; each is a resource\n"
		"`DOMAIN/NAME` of which every device that it means has slots. Two keys are a profile's alone:\n\n"
		"| key | default | allowed | meaning |\n|---|---|---|---|\n"
		"| `count` | as many as the guarantees fit | 1 to %d | slots on each device |\n"
		"| `cdi` | none | a CDI device such as `nvidia.com/gpu=0` | named to the container runtime for each container, which must have CDI enabled; device nodes and the driver's libraries are then its business |\n\n"
		"`kubernetes.aliases` maps at most %d full names of resources to profiles, which then go by these names as well.\n"
		"[KUBERNETES.md](KUBERNETES.md) says how to use all this.\n\n"
		"```yaml\nkubernetes:\n  enabled: true\n  profiles:\n    - name: vgpu-2g\n      memory: 2G\n      compute: 25%%\n"
		"    - name: camera\n      device: 0000:3b:00.0\n      class: latency\n      memory: 4G\n      duty: 40%%\n      sla: 20ms\n      count: 1\n"
		"  aliases:\n    nvidia.com/gpu: vgpu-2g\n```\n\n"
		"What other systems call things can be written in a profile as it stands in their manifests:\n\n"
		"| name | used by | one unit is | sets |\n|---|---|---|---|\n",
		PEN_CONFIG_PROFILES_MAX, PEN_CONFIG_SLOTS_MAX, PEN_CONFIG_ALIASES_MAX);
	const struct pen_alias *a;
	for (size_t i = 0; (a = pen_alias(i)); i++) {
		int f = pen_alias_field(a->kind);
		fprintf(out, "| `%s` | %s | %s | %s |\n", a->name, a->systems, pen_alias_unit(a->kind),
			f >= 0 ? pen_contract_field((size_t)f)->name : a->kind == PEN_ALIAS_SLOTS ? "count" : "nothing");
	}
}

int main(int argc, char **argv)
{
	pen_auto_free char *text = NULL;
	size_t len = 0;
	FILE *mem = open_memstream(&text, &len);
	if (!mem)
		return 1;
	fputs("# Configuration reference\n\n"
	      "Generated from src/contract/contract.h and config.h by `penstock-config-reference`; do not edit.\n\n", mem);
	write_contract(mem);
	write_node(mem);
	write_kubernetes(mem);
	if (fclose(mem) != 0)
		return 1;
	if (argc < 2)
		return fwrite(text, 1, len, stdout) == len ? 0 : 1;

	pen_auto_free char *have = calloc(1, len + 2);
	pen_auto_fclose FILE *f = fopen(argv[1], "r");
	if (have && f && fread(have, 1, len + 1, f) == len && !memcmp(have, text, len))
		return 0;
	fprintf(stderr, "%s is out of date: run %s > %s\n", argv[1], argv[0], argv[1]);
	return 1;
}
