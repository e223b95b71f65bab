/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the kubelet's device plugin that need neither a kubelet nor a daemon: the machine, frames, names, and what is read from files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/units.h"
#include "daemon/daemon.h"
#include "integration/kubelet/internal.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define UID "6f2ec5d2-07a6-4d0e-9f4e-2f5f3f1f6b0a"
#define UID_ "6f2ec5d2_07a6_4d0e_9f4e_2f5f3f1f6b0a"

/* What the daemon's main file has and nothing here comes to. */
void pen_daemon_probed(struct pen_daemon *d)
{
	(void)d;
}

void pen_daemon_maybe_quit(struct pen_daemon *d)
{
	(void)d;
}

/* Every (state, event): what is called is started anew, nothing is answered twice, and a state is only left for a reason. */
static void test_machine(void **state)
{
	(void)state;
	for (unsigned s = 0; s < PEN_KUBE_STATE_MAX_; s++)
		for (unsigned e = 0; e < PEN_KUBE_EV_MAX_; e++) {
			enum pen_kube_state next = (enum pen_kube_state)s;
			enum pen_kube_action a = pen_kube_step(&next, (enum pen_kube_event)e);
			assert_true(next < PEN_KUBE_STATE_MAX_);
			/* What is started waits for an answer, and nothing else does. */
			assert_int_equal(a == PEN_KUBE_START, next == PEN_KUBE_CALLING && (s != PEN_KUBE_CALLING || a == PEN_KUBE_START));
			if (a == PEN_KUBE_NOTHING)
				assert_int_equal(next, s);
			if (e == PEN_KUBE_EV_APPEARED)
				assert_int_equal(a, PEN_KUBE_START);
			if (a == PEN_KUBE_RETRY)
				assert_int_equal(next, PEN_KUBE_DOWN);
			if (a == PEN_KUBE_WATCHDOG)
				assert_int_equal(next, PEN_KUBE_WAITING);
			assert_true(*pen_kube_state_name(next));
		}
}

static void test_ids(void **state)
{
	(void)state;
	static const char *const bad[] = { "", "g", "g0", "g0-", "g0-s", "g0s1", "0-s1", "g00-s1", "g0-s01", "g64-s0", "g0-s64", "g100-s0",
					   "g0-s1 ", " g0-s1", "g-1-s0", "g0-s1-", "G0-S1", "g0-sx", "g0x-s1" };
	char buf[PEN_KUBE_ID_MAX];
	unsigned g, s;
	for (unsigned card = 0; card < PEN_KUBE_CARDS; card++)
		for (unsigned slot = 0; slot < PEN_KUBE_SLOTS; slot++) {
			assert_int_equal(pen_kube_id_parse(pen_kube_id(buf, card, slot), &g, &s), 0);
			assert_true(g == card && s == slot);
		}
	g = s = 77;
	for (size_t i = 0; i < PEN_ARRAY_LEN(bad); i++)
		if (pen_kube_id_parse(bad[i], &g, &s) != -EINVAL)
			fail_msg("'%s' is taken", bad[i]);
	assert_true(g == 77 && s == 77);
}

static enum pen_grpc_status message_of(const char *bytes, size_t n, size_t *ret_len)
{
	struct pen_grpc_frame f = { .data = NULL };
	const uint8_t *m = NULL;
	for (size_t i = 0; i < n; i++)   /* a byte at a time */
		assert_int_equal(pen_grpc_frame_add(&f, (const uint8_t *)bytes + i, 1), 0);
	enum pen_grpc_status s = pen_grpc_frame_message(&f, &m, ret_len);
	if (s == PEN_GRPC_OK && *ret_len)
		assert_memory_equal(m, bytes + 5, *ret_len);
	pen_grpc_frame_finish(&f);
	return s;
}

static void test_frames(void **state)
{
	(void)state;
	size_t len = 0;
	assert_int_equal(message_of("\0\0\0\0\0", 5, &len), PEN_GRPC_OK);
	assert_int_equal(len, 0);
	assert_int_equal(message_of("\0\0\0\0\3abc", 8, &len), PEN_GRPC_OK);
	assert_int_equal(len, 3);
	assert_int_equal(message_of("", 0, &len), PEN_GRPC_INVALID_ARGUMENT);
	assert_int_equal(message_of("\0\0\0\0", 4, &len), PEN_GRPC_INVALID_ARGUMENT);
	assert_int_equal(message_of("\0\0\0\0\3ab", 7, &len), PEN_GRPC_INVALID_ARGUMENT);
	assert_int_equal(message_of("\0\0\0\0\1ab", 7, &len), PEN_GRPC_INVALID_ARGUMENT);
	assert_int_equal(message_of("\1\0\0\0\1a", 6, &len), PEN_GRPC_UNIMPLEMENTED);
	assert_int_equal(message_of("\0\377\377\377\377a", 6, &len), PEN_GRPC_RESOURCE_EXHAUSTED);

	struct pen_grpc_frame f = { .data = NULL };
	pen_auto_free uint8_t *big = calloc(1, PEN_GRPC_MESSAGE_MAX + 6);
	const uint8_t *m;
	assert_non_null(big);
	assert_int_equal(pen_grpc_frame_add(&f, big, PEN_GRPC_MESSAGE_MAX + 5), 0);
	assert_int_equal(pen_grpc_frame_add(&f, big, 1), -EMSGSIZE);
	assert_int_equal(pen_grpc_frame_add(&f, big, 0), -EMSGSIZE);
	assert_int_equal(pen_grpc_frame_message(&f, &m, &len), PEN_GRPC_RESOURCE_EXHAUSTED);
	pen_grpc_frame_finish(&f);
}

static void test_percent(void **state)
{
	(void)state;
	char buf[64], small[8];
	pen_grpc_percent(buf, sizeof(buf), "a b%\n\xc3\xa9~");
	assert_string_equal(buf, "a b%25%0A%C3%A9~");
	pen_grpc_percent(small, sizeof(small), "abcde%x");   /* not half an escape */
	assert_string_equal(small, "abcde");
	pen_grpc_percent(small, sizeof(small), "abcdefghij");
	assert_string_equal(small, "abcdefg");
}

static void test_cgroup(void **state)
{
	(void)state;
	static const struct {
		const char *text, *container, *pod;
	} cases[] = {
		/* cgroupfs, systemd, without cgroups per QoS, podman */
		{ "0::/kubepods/burstable/pod" UID "/" CID "\n", CID, UID },
		{ "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_ ".slice/cri-containerd-" CID ".scope\n", CID, UID },
		{ "4:memory:/kubepods.slice/kubepods-pod" UID_ ".slice/crio-" CID ".scope", CID, UID },
		{ "0::/k8s.io/" CID "\n", CID, "" },
		{ "0::/machine.slice/libpod-" CID ".scope/container", CID, "" },
		/* static pods have a hash for a UID */
		{ "0::/kubepods/pod0123456789abcdef0123456789abcdef/" CID, CID, "0123456789abcdef0123456789abcdef" },
		/* hybrid hosts: one line knows, others do not */
		{ "9:name=systemd:/\n4:memory:/kubepods/pod" UID "/" CID "\n0::/\n", CID, UID },
		/* what a container makes below its own is not believed; a node that is a container is not taken for it */
		{ "0::/kubepods/pod" UID "/" CID "/pod11111111-1111-1111-1111-111111111111/" "f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", CID, UID },
		{ "0::/docker/f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/kubelet/kubepods/pod" UID "/" CID, CID, UID },
		{ "0::/user.slice/user-1000.slice/session-2.scope", "", "" },
		{ "0::/kubepods/pod" UID, "", "" },
		{ "0::/kubepods/podxyz/0123", "", "" },
		{ "", "", "" }, { "rubbish", "", "" }, { "/\n/\n//", "", "" },
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(cases); i++) {
		struct pen_kube_who w = { .pod = "" };
		int r = pen_kube_who_cgroup(cases[i].text, &w);
		if (r != (*cases[i].container ? 0 : -ENOENT))
			fail_msg("case %zu: %d", i, r);
		assert_string_equal(w.container_id, cases[i].container);
		assert_string_equal(w.pod_uid, cases[i].pod);
	}
}

static void test_bundle(void **state)
{
	(void)state;
	static const char containerd[] = "{\"annotations\":{\"io.kubernetes.cri.sandbox-namespace\":\"shop\",\"io.kubernetes.cri.sandbox-name\":\"cam\","
					 "\"io.kubernetes.cri.sandbox-uid\":\"u\",\"io.kubernetes.cri.container-name\":\"infer\"}}";
	static const char *const bad[] = { "{}", "{\"annotations\":{}}", "{\"annotations\":[1]}", "[]", "{\"annotations\":{\"io.kubernetes.cri.sandbox-name\":7}}" };
	struct pen_kube_who w = { .pod = "" };
	assert_int_equal(pen_kube_who_bundle(containerd, strlen(containerd), &w), 0);
	assert_string_equal(w.namespace, "shop");
	assert_string_equal(w.pod, "cam");
	assert_string_equal(w.container, "infer");
	assert_string_equal(w.pod_uid, "u");
	for (size_t i = 0; i < PEN_ARRAY_LEN(bad); i++)
		assert_int_equal(pen_kube_who_bundle(bad[i], strlen(bad[i]), &w), -ENOENT);
	assert_int_equal(pen_kube_who_bundle("{", 1, &w), -EINVAL);
	assert_string_equal(w.pod, "cam");   /* untouched */
}

static void test_pods(void **state)
{
	(void)state;
	static const char text[] =
		"{\"items\":[{\"metadata\":{\"name\":\"a\",\"namespace\":\"n\",\"uid\":\"1\"},\"status\":{}},"
		"{\"metadata\":{\"name\":\"b\",\"namespace\":\"m\",\"uid\":\"2\"},\"status\":{\"initContainerStatuses\":[{\"name\":\"i\",\"containerID\":"
		"\"cri-o://" CID "\"}],\"containerStatuses\":[{\"name\":\"c\"},{\"name\":\"d\",\"containerID\":\"" CID "\"}]}}]}";
	struct pen_kube_who w = { .container_id = CID };
	assert_int_equal(pen_kube_who_pods(text, strlen(text), &w), 0);
	assert_string_equal(w.pod, "b");
	assert_string_equal(w.namespace, "m");
	assert_string_equal(w.container, "i");
	assert_string_equal(w.pod_uid, "2");
	struct pen_kube_who by_uid = { .container_id = "other", .pod_uid = "1" };
	assert_int_equal(pen_kube_who_pods(text, strlen(text), &by_uid), 0);
	assert_string_equal(by_uid.pod, "a");
	assert_string_equal(by_uid.container, "");
	struct pen_kube_who nobody = { .container_id = "x" };
	assert_int_equal(pen_kube_who_pods(text, strlen(text), &nobody), -ENOENT);
	assert_int_equal(pen_kube_who_pods("{}", 2, &nobody), -ENOENT);
	assert_int_equal(pen_kube_who_pods("nope", 4, &nobody), -EINVAL);
}

static void test_place(void **state)
{
	(void)state;
	static const struct {
		const char *text, *dir, *dev, *above;
	} cases[] = {
		{ "20 1 8:1 / / rw - ext4 x rw\n21 20 0:25 / /run rw - tmpfs t rw\n", "/run/penstock", "0:25", "/penstock/containers/" },
		{ "20 1 8:1 / / rw - ext4 x rw\n21 20 0:25 / /ru rw - tmpfs t rw\n", "/run/penstock", "8:1", "/run/penstock/containers/" },
		/* a part of a file system, and the daemon in a container of its own */
		{ "20 1 0:40 /@/root / rw - btrfs x rw\n", "/run/penstock", "0:40", "/@/root/run/penstock/containers/" },
		{ "20 1 0:41 / / rw - overlay x rw\n21 20 0:25 /penstock /run/penstock rw - tmpfs t rw\n", "/run/penstock", "0:25", "/penstock/containers/" },
		/* what is mounted over it last is what is seen */
		{ "20 1 8:1 / / rw\n21 20 0:25 / /run rw\n22 21 0:26 / /run rw\n", "/run/penstock", "0:26", "/penstock/containers/" },
		{ "", "/run/penstock", NULL, NULL }, { "rubbish\n\n x\n", "/run/penstock", NULL, NULL },
		{ "20 1 123456789012345678901234567890:1 / / rw\n", "/run/penstock", NULL, NULL },
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(cases); i++) {
		struct pen_kube_place p;
		int r = pen_kube_place_find(cases[i].text, cases[i].dir, &p);
		if (r != (cases[i].dev ? 0 : -ENOENT))
			fail_msg("case %zu: %d", i, r);
		if (r < 0)
			continue;
		assert_string_equal(p.dev, cases[i].dev);
		assert_string_equal(p.above, cases[i].above);
	}
}

static void test_port_owner(void **state)
{
	(void)state;
#define HEAD "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
#define LINE(local, st, uid) "   0: " local " 00000000:0000 " st " 00000000:00000000 00:00000000 00000000  " uid "        0 1544 1 00000000a06e3cf6 100 0 0 10 0\n"
	assert_int_equal(pen_kube_port_owner(HEAD LINE("0100007F:280F", "0A", "   0"), 10255), 1);
	assert_int_equal(pen_kube_port_owner(HEAD LINE("00000000000000000000000000000000:280F", "0A", "   0"), 10255), 1);
	assert_int_equal(pen_kube_port_owner(HEAD LINE("0100007F:280F", "0A", "1000"), 10255), -1);
	assert_int_equal(pen_kube_port_owner(HEAD LINE("00000000:280F", "0A", "   0") LINE("0100007F:280F", "0A", "1000"), 10255), -1);
	/* connected and not listening; another port; nothing */
	assert_int_equal(pen_kube_port_owner(HEAD LINE("0100007F:280F", "01", "   0") LINE("0100007F:2810", "0A", "   0"), 10255), 0);
	assert_int_equal(pen_kube_port_owner("", 10255), 0);
	assert_int_equal(pen_kube_port_owner("0: \n::\n0: zz:280F", 10255), 0);
}

static void test_checkpoint(void **state)
{
	(void)state;
	static const char text[] = "{\"Data\":{\"PodDeviceEntries\":["
				   "{\"PodUID\":\"u1\",\"ContainerName\":\"c\",\"ResourceName\":\"d/r\",\"DeviceIDs\":{\"-1\":[\"g0-s1\",\"x\"],\"0\":[\"g1-s2\"]},\"AllocResp\":\"Cg==\"},"
				   "{\"PodUID\":\"u2\",\"ContainerName\":\"e\",\"ResourceName\":\"d/r\",\"DeviceIDs\":[\"g0-s3\",7]},"
				   "{\"PodUID\":\"u3\",\"DeviceIDs\":null},{},4],\"RegisteredDevices\":{\"d/r\":[\"g0-s0\"]}},\"Checksum\":1}";
	static const char *const bad[] = { "", "{}", "[]", "{\"Data\":null}", "{\"Data\":[]}", "{\"Data\"" };
	struct pen_kube k = { .dir = "" };
	assert_int_equal(pen_kube_checkpoint_parse(text, strlen(text), &k.checkpoint), 0);
	assert_int_equal(k.checkpoint.n, 3);
	assert_true(k.checkpoint.known);
	assert_string_equal(k.checkpoint.v[0].pod_uid, "u1");
	assert_int_equal(pen_kube_checkpointed(&k, "d/r", 0), 1 << 1 | 1 << 3);
	assert_int_equal(pen_kube_checkpointed(&k, "d/r", 1), 1 << 2);
	assert_int_equal(pen_kube_checkpointed(&k, "d/q", 0), 0);
	pen_kube_checkpoint_free(&k.checkpoint);
	assert_false(k.checkpoint.known);
	for (size_t i = 0; i < PEN_ARRAY_LEN(bad); i++)
		assert_int_equal(pen_kube_checkpoint_parse(bad[i], strlen(bad[i]), &k.checkpoint), -EINVAL);
	assert_int_equal(pen_kube_checkpoint_parse("{\"Data\":{\"PodDeviceEntries\":null}}", 34, &k.checkpoint), 0);   /* none yet */
	assert_true(k.checkpoint.known && !k.checkpoint.n);
}

static void set(struct pen_contract *c, const char *field, const char *value)
{
	assert_int_equal(pen_contract_set(c, field, value, NULL), 0);
}

/* How many slots a card has, and what several of them are together. */
static void test_slots(void **state)
{
	(void)state;
	struct pen_kube_card card = { .n = 2, .key = "pci:0000:3b:00.0", .model = "T4", .mem_bytes = 16 * PEN_GIB, .units = 40 };
	struct pen_config_profile p = { .count = 0 };
	struct pen_contract c;
	char text[PEN_VALUE_TEXT];
	pen_contract_init(&p.contract);
	set(&p.contract, "name", "x");
	set(&p.contract, "memory", "3G..5G");
	assert_int_equal(pen_kube_slots_on(&p, &card), 5);
	card.reserve_bytes = 2 * PEN_GIB;
	assert_int_equal(pen_kube_slots_on(&p, &card), 4);
	set(&p.contract, "compute", "30%..60%");
	assert_int_equal(pen_kube_slots_on(&p, &card), 3);
	set(&p.contract, "units", "20");
	assert_int_equal(pen_kube_slots_on(&p, &card), 2);
	pen_kube_contract(&p, &card, 2, &c);
	assert_string_equal(c.device, card.key);
	assert_string_equal(pen_contract_get(&c, PEN_FIELD_memory, text, sizeof(text)), "6G..10G");
	assert_string_equal(pen_contract_get(&c, PEN_FIELD_compute, text, sizeof(text)), "60%..100%");
	assert_string_equal(pen_contract_get(&c, PEN_FIELD_units, text, sizeof(text)), "40");
	assert_int_equal(pen_contract_validate(&c, NULL), 0);
	pen_kube_contract(&p, &card, 4, &c);
	assert_int_equal(c.compute.guaranteed, 1200000);   /* for admission to refuse */
	p.count = 7;
	assert_int_equal(pen_kube_slots_on(&p, &card), 7);
	set(&p.contract, "device", "A100");
	assert_int_equal(pen_kube_slots_on(&p, &card), 0);
	set(&p.contract, "device", "0000:3B:00.0");
	assert_int_equal(pen_kube_slots_on(&p, &card), 7);
	p.count = 0;
	pen_contract_init(&p.contract);
	set(&p.contract, "memory", "32G");
	assert_int_equal(pen_kube_slots_on(&p, &card), 0);   /* too large for this card */
	set(&p.contract, "memory", "1K..");
	assert_int_equal(pen_kube_slots_on(&p, &card), 64);  /* as many as have a place */
	set(&p.contract, "class", "latency");
	set(&p.contract, "duty", "40%");
	assert_int_equal(pen_kube_slots_on(&p, &card), 2);
}

struct waited {
	struct event_base *base;
	unsigned calls;
	enum pen_grpc_status status;
};

static void on_done(void *arg, enum pen_grpc_status status, const uint8_t *message, size_t len, const char *text)
{
	struct waited *w = arg;
	(void)message, (void)len, (void)text;
	w->calls++;
	w->status = status;
	event_base_loopbreak(w->base);
}

/* A kubelet that takes the call and never answers, hangs up, or speaks something else; and none at all. */
static void test_client(void **state)
{
	(void)state;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct waited w = { .base = event_base_new() };
	struct pen_grpc_client *c;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/tmp/pen-kube-%d", (int)getpid());
	unlink(sa.sun_path);
	assert_int_equal(pen_grpc_client_call(w.base, sa.sun_path, "/x/y", NULL, 0, 50, on_done, &w, &c), -ENOENT);
	pen_auto_close int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(pen_grpc_client_call(w.base, sa.sun_path, "/x/y", NULL, 0, 50, on_done, &w, &c), -ECONNREFUSED);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(pen_grpc_client_call(w.base, sa.sun_path, "/x/y", NULL, 0, 50, on_done, &w, &c), 0);
	event_base_dispatch(w.base);
	assert_int_equal(w.calls, 1);
	assert_int_equal(w.status, PEN_GRPC_DEADLINE_EXCEEDED);
	close(accept(fd, NULL, NULL));

	assert_int_equal(pen_grpc_client_call(w.base, sa.sun_path, "/x/y", NULL, 0, 15000, on_done, &w, &c), 0);
	close(accept(fd, NULL, NULL));
	event_base_dispatch(w.base);
	assert_int_equal(w.calls, 2);
	assert_int_equal(w.status, PEN_GRPC_UNAVAILABLE);

	assert_int_equal(pen_grpc_client_call(w.base, sa.sun_path, "/x/y", NULL, 0, 15000, on_done, &w, &c), 0);
	int peer = accept(fd, NULL, NULL);
	assert_true(write(peer, "HTTP/1.1 400 Bad Request\r\n\r\n", 28) == 28);
	event_base_dispatch(w.base);
	assert_int_equal(w.calls, 3);
	assert_int_equal(w.status, PEN_GRPC_UNAVAILABLE);
	close(peer);

	assert_int_equal(pen_grpc_client_call(w.base, sa.sun_path, "/x/y", NULL, 0, 1, on_done, &w, &c), 0);
	pen_grpc_client_cancel(c);
	event_base_loop(w.base, EVLOOP_NONBLOCK);
	assert_int_equal(w.calls, 3);
	unlink(sa.sun_path);
	event_base_free(w.base);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);   /* as the daemon does */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_machine), cmocka_unit_test(test_ids),	 cmocka_unit_test(test_frames),
		cmocka_unit_test(test_percent), cmocka_unit_test(test_cgroup),	 cmocka_unit_test(test_bundle),
		cmocka_unit_test(test_pods),	cmocka_unit_test(test_checkpoint), cmocka_unit_test(test_slots),
		cmocka_unit_test(test_client),	cmocka_unit_test(test_place),	 cmocka_unit_test(test_port_owner),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
