/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda.c - NVIDIA GPUs: the driver, finding and opening one, closing it.
 *
 * The driver is loaded by the first open and stays: its threads and its state in
 * the process do not end well otherwise. A GPU is named by its UUID; ordinals
 * change with CUDA_VISIBLE_DEVICES. The daemon is never a client of MPS, where a
 * fault of any other client would end its context too. Core thread, at start-up
 * and shutdown: the only driver calls it makes. cuda_int.h names the other files.
 */
#include "kvmd/dev/cuda_int.h"

#include "kvmd/lib/err.h"
#include "kvmd/wire.h"

#define MIB(bytes)	((unsigned long long)((bytes) >> 20))

struct cu cuda_drv;
struct cuda cuda_gpu[CUDA_MAX_GPUS];
static int nr_gpus;		/* of the driver, at most CUDA_MAX_GPUS */
static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;	/* cuda_drv.so, nr_gpus */

/* -------------------------------------------------------------------- driver */

static int load(char *msg, size_t n)
{
	struct cu cu;
	int r;

	/* Without it the driver looks for MPS in a default place; here there is none. */
	if (setenv("CUDA_MPS_PIPE_DIRECTORY", "/nonexistent", 1))
		return err_text(-ENOMEM, msg, n, "out of memory");
	if (cu_load(&cu, msg, n))
		return -ENODEV;
	if (cu.version < CU_MIN_DRIVER)
		return err_text(-ENODEV, msg, n, "the NVIDIA driver is too old: it does CUDA "
				"%d.%d, 12.0 (R525) or newer is needed", cu.version / 1000,
				cu.version % 1000 / 10);
	r = cu.device_count(&nr_gpus);
	if (r)
		return err_text(-ENODEV, msg, n, "no GPUs: %s", cu_error(&cu, r));
	nr_gpus = min(nr_gpus, CUDA_MAX_GPUS);
	for (int i = 0; i < CUDA_MAX_GPUS; i++) {
		struct cuda *c = &cuda_gpu[i];

		cuda_ctx_init(c);
		c->idx = (unsigned)i;
		if (i >= nr_gpus)
			continue;
		r = cu.device_get(&c->ord, i);
		if (!r)
			r = cu.device_uuid(&c->uuid_bytes, c->ord);
		if (!r)
			cu_uuid_text(&c->uuid_bytes, c->uuid);
	}
	cuda_drv = cu;
	return 0;
}

static int load_once(char *msg, size_t n)
{
	int err = 0;

	pthread_mutex_lock(&load_lock);
	if (!cuda_drv.so)
		err = load(msg, n);
	pthread_mutex_unlock(&load_lock);
	return err;
}

/* ------------------------------------------------------------------- finding */

static const char *bare(const char *uuid)
{
	return strncasecmp(uuid, "GPU-", 4) ? uuid : uuid + 4;
}

static int find_named(const char *uuid, struct cuda **ret_c, char *msg, size_t n)
{
	char list[CUDA_TEXT] = "";
	size_t at = 0;

	for (int i = 0; i < nr_gpus; i++) {
		struct cuda *c = &cuda_gpu[i];

		if (!strcasecmp(c->uuid, bare(uuid))) {
			*ret_c = c;
			return c->open ? err_text(-EBUSY, msg, n, "GPU %s is the device '%s' "
						  "already: name each GPU once", c->uuid,
						  c->d->name) : 0;
		}
		if (at < sizeof(list))
			at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s",
					       at ? ", " : "", c->uuid);
	}
	return err_text(-ENODEV, msg, n, "there is no GPU %s; there is %s", bare(uuid),
			*list ? list : "none");
}

static int find(const char *uuid, struct cuda **ret_c, char *msg, size_t n)
{
	if (uuid && *uuid)
		return find_named(uuid, ret_c, msg, n);
	for (int i = 0; i < nr_gpus; i++) {
		if (cuda_gpu[i].open)
			continue;
		*ret_c = &cuda_gpu[i];
		return 0;
	}
	if (!nr_gpus)
		return err_text(-ENODEV, msg, n, "no GPU is visible to this process: see "
				"nvidia-smi and CUDA_VISIBLE_DEVICES");
	return err_text(-ENODEV, msg, n, "all %d GPUs are devices already: remove one of them "
			"from the configuration", nr_gpus);
}

/* ------------------------------------------------------------------- opening */

static int attr(const struct cuda *c, int what)
{
	int v = 0;

	return cuda_drv.device_attr(&v, what, c->ord) ? 0 : v;
}

static int check_abilities(const struct cuda *c, bool legacy, char *msg, size_t n)
{
	if (!attr(c, CU_ATTR_UNIFIED_ADDRESSING))
		return err_text(-EOPNOTSUPP, msg, n, "GPU %s has no unified addressing: use a "
				"64-bit system and a newer GPU", c->uuid);
	if (!legacy && (!attr(c, CU_ATTR_VMM) || !attr(c, CU_ATTR_POSIX_FD)))
		return err_text(-EOPNOTSUPP, msg, n, "GPU %s cannot export memory as file "
				"descriptors here: set ipc = legacy", c->uuid);
	return 0;
}

static int take_context(struct cuda *c, char *msg, size_t n)
{
	int r = cuda_ctx_open(c);

	if (r)
		return err_text(-ENODEV, msg, n, "GPU %s gives no context: %s%s", c->uuid,
				cu_error(&cuda_drv, r), r == CU_DEVICE_UNAVAILABLE ?
				": another process has it for itself: nvidia-smi -c DEFAULT" :
				r == CU_OUT_OF_MEMORY ? ": its memory is full" : "");
	/* Known only once there is a context. */
	if (attr(c, CU_ATTR_MPS) == 1) {
		cuda_ctx_close(c);
		return err_text(-EPERM, msg, n, "GPU %s is shared through MPS, where any client's "
				"fault would end the daemon's copies: start it where no MPS control "
				"daemon is reached (hide /tmp/nvidia-mps, as PrivateTmp= does), or "
				"stop that one", c->uuid);
	}
	return 0;
}

/* What a share of the free memory is, or whether bytes fit. */
static int find_budget(const struct cuda *c, const struct dev_opts *o, uint64_t granule,
		       uint64_t *ret_bytes, char *msg, size_t n)
{
	size_t unused, total;
	uint64_t have, want = o->bytes;
	int r = cuda_drv.mem_info(&unused, &total);

	if (r)
		return err_text(-EIO, msg, n, "GPU %s does not say what memory is free: %s",
				c->uuid, cu_error(&cuda_drv, r));
	have = unused + (o->kept_bytes ? o->kept_bytes(o->ctx, c->uuid) : 0);
	if (o->share) {
		want = have / 100 * min(o->share, 100u);
		if (o->bytes)
			want = min(want, o->bytes);
	} else if (want > have) {
		return err_text(-ENOMEM, msg, n, "GPU %s has %llu of %llu MiB free, %llu MiB are "
				"wanted: lower the budget, or end what uses the rest", c->uuid,
				MIB(have), MIB(total), MIB(want));
	}
	want -= want % granule;
	if (!want)
		return err_text(-ENOMEM, msg, n, "GPU %s: a budget of less than %llu MiB holds "
				"nothing (%llu of %llu MiB are free): raise it", c->uuid,
				MIB(granule), MIB(have), MIB(total));
	*ret_bytes = want;
	return 0;
}

static uint64_t find_granule(const struct cuda *c)
{
	struct cu_mem_prop p = {
		.type = CU_MEM_PINNED,
		.handle_types = CU_MEM_POSIX_FD,
		.location = { .type = CU_LOC_DEVICE, .id = c->ord },
	};
	size_t granule;

	if (c->legacy || cuda_drv.mem_gran(&granule, &p, CU_MEM_GRAN_MINIMUM) || !granule)
		return CUDA_GRANULE;
	return granule;
}

/* The context is there: the rest of opening. */
static int set_up(struct dev *d, struct cuda *c, const struct dev_opts *o, char *msg, size_t n)
{
	char name[64] = "GPU";
	uint64_t granule, budget = 0;
	int err;

	c->legacy = o->legacy;
	c->timeout_ns = o->copy_timeout_ns;
	if (c->workers != d->workers)
		c->posted = false;	/* news that a former pool of workers dropped */
	c->workers = d->workers;
	granule = find_granule(c);
	err = find_budget(c, o, granule, &budget, msg, n);
	if (err)
		return err;
	err = cuda_movers_start(c, o->copy_threads ? o->copy_threads : 2);
	if (err)
		return err_text(err, msg, n, "GPU %s: its threads do not start: %s", c->uuid,
				strerror(-err));
	(void)cuda_drv.device_name(name, sizeof(name), c->ord);
	name[sizeof(name) - 1] = 0;
	snprintf(d->model, sizeof(d->model), "%.40s (CUDA %d.%d)", name,
		 cuda_drv.version / 1000, cuda_drv.version % 1000 / 10);
	snprintf(d->uuid, sizeof(d->uuid), "%s", c->uuid);
	memcpy(d->uuid_bytes, c->uuid_bytes.bytes, sizeof(d->uuid_bytes));
	d->granularity = granule;
	d->budget_bytes = budget;
	d->handle_kind = o->legacy ? KVMD_HANDLE_CUDA_LEGACY : KVMD_HANDLE_CUDA_VMM;
	return 0;
}

static int cuda_open(struct dev *d, const struct dev_opts *o, char *msg, size_t n)
{
	struct cuda *c = NULL;
	int err = load_once(msg, n);

	if (!err)
		err = find(o->uuid, &c, msg, n);
	if (!err)
		err = check_abilities(c, o->legacy, msg, n);
	if (!err)
		err = take_context(c, msg, n);
	if (err)
		return err;
	err = set_up(d, c, o, msg, n);
	/* Only movers and workers have the context from here on. */
	(void)cuda_drv.ctx_set(NULL);
	if (err) {
		cuda_ctx_close(c);
		return err;
	}
	c->d = d;
	d->priv = c;
	cuda_pins_join(c);
	return 0;
}

static void cuda_close(struct dev *d)
{
	struct cuda *c = d->priv;

	cuda_movers_stop(c);
	cuda_account(c);
	cuda_pins_part(c);
	cuda_ctx_close(c);
	c->d = NULL;
	d->priv = NULL;
}

const struct dev_ops dev_cuda_ops = {
	.name = "cuda",
	.handle_kind = KVMD_HANDLE_CUDA_VMM,
	.has_memory = true,
	.sums = true,
	.granularity = CUDA_GRANULE,
	.grace_ns = 2000000000ull,	/* forked children and deferred closes outlive a client */
	.open = cuda_open,
	.close = cuda_close,
	.host_pin = cuda_host_pin,
	.host_unpin = cuda_host_unpin,
	.extent_create = cuda_extent_create,
	.extent_attach = cuda_extent_attach,
	.extent_scrub = cuda_extent_scrub,
	.extent_destroy = cuda_extent_destroy,
	.copy = cuda_copy,
};
