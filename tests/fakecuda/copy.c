// SPDX-License-Identifier: Apache-2.0
/*
 * copy.c - copies, fills and memory operations: what is refused when they are submitted.
 */
#include <stdlib.h>

#include "tests/fakecuda/fake.h"

/* Both ends of unified addresses: device memory that is mapped, or host memory. */
static int check_end(cu_ptr p, size_t bytes)
{
	struct fc_map *m;
	cu_ptr at;

	if (!fc_reserved(p))
		return fc_host_check(p, bytes);
	for (at = p; at < p + bytes; at = m->ptr + m->phys->bytes) {
		m = fc_map_at(at);
		if (!m)
			return CU_INVALID_VALUE;
	}
	return 0;
}

static int check_copy(cu_ptr dst, cu_ptr src, size_t bytes)
{
	int r = check_end(dst, bytes);

	return r ? r : check_end(src, bytes);
}

/* The NTH copy of the process hangs, or meets broken memory. */
static void set_fate(struct fc_copy *c)
{
	uint64_t n = ++fc.nr_copies;

	c->hang = n == fc.conf.hang ? n : 0;
	c->ecc = n == fc.conf.ecc;
}

static int submit(struct fc_stream *s, const cu_ptr *dst, const cu_ptr *src, const size_t *bytes,
		  size_t nr)
{
	struct fc_op *op = fc_op_new(OP_COPY, nr);
	uint64_t batch = ++fc.next_batch;

	if (!op)
		return CU_OUT_OF_MEMORY;
	for (size_t i = 0; i < nr; i++) {
		op->copy[i] = (struct fc_copy){ .dst = dst[i], .src = src[i], .bytes = bytes[i] };
		set_fate(&op->copy[i]);
		fc_use_add(s, op, batch, dst[i], bytes[i], true);
		fc_use_add(s, op, batch, src[i], bytes[i], false);
	}
	fc_submit(s, op);
	return CU_OK;
}

int fc_copy(cu_ptr dst, cu_ptr src, size_t bytes, cu_stream stream)
{
	struct fc_stream *s;
	struct fc_ctx *c;
	int r;

	ENTER_CTX(copy, &c);
	s = fc_stream_find(c, stream);
	if (!s)
		return fc_leave(CU_INVALID_HANDLE);
	if (!bytes)
		return fc_leave(CU_OK);
	r = check_copy(dst, src, bytes);
	return fc_leave(r ? r : submit(s, &dst, &src, &bytes, 1));
}

/*
 * Not on the legacy default stream [H 11165]; every copy has attributes, those of
 * attr[k] from attr_idx[k] on [H 11107-11177].
 */
static int check_batch(struct fc_ctx *c, struct fc_stream *s, cu_stream stream, size_t nr,
		       const struct cu_copy_attr *attr, const size_t *attr_idx, size_t nr_attrs)
{
	if (!s)
		return CU_INVALID_HANDLE;
	if ((s == c->null && (uintptr_t)stream != 2) || !nr || !attr || !attr_idx || !nr_attrs ||
	    nr_attrs > nr || attr_idx[0])
		return CU_INVALID_VALUE;
	for (size_t i = 0; i < nr_attrs; i++)
		if ((attr[i].src_order != CU_COPY_ORDER_STREAM &&
		     attr[i].src_order != CU_COPY_ORDER_ANY) ||
		    (i && attr_idx[i] <= attr_idx[i - 1]) || attr_idx[i] >= nr)
			return CU_INVALID_VALUE;
	return CU_OK;
}

static int batch(struct fc_ctx *c, const cu_ptr *dst, const cu_ptr *src, const size_t *bytes,
		 size_t nr, const struct cu_copy_attr *attr, const size_t *attr_idx,
		 size_t nr_attrs, cu_stream stream, size_t *ret_fail)
{
	struct fc_stream *s = fc_stream_find(c, stream);
	int r = check_batch(c, s, stream, nr, attr, attr_idx, nr_attrs);

	*ret_fail = SIZE_MAX;
	if (r)
		return r;
	if (!dst || !src || !bytes)
		return CU_INVALID_VALUE;
	for (size_t i = 0; i < nr; i++) {
		r = bytes[i] ? check_copy(dst[i], src[i], bytes[i]) : CU_INVALID_VALUE;
		if (r) {
			*ret_fail = i;
			return r;
		}
	}
	return submit(s, dst, src, bytes, nr);
}

int fc_copy_batch(cu_ptr *dst, cu_ptr *src, size_t *bytes, size_t nr, struct cu_copy_attr *attr,
		  size_t *attr_idx, size_t nr_attrs, cu_stream s)
{
	struct fc_ctx *c;
	size_t ignored;

	ENTER_CTX(copy_batch, &c);
	return fc_leave(batch(c, dst, src, bytes, nr, attr, attr_idx, nr_attrs, s, &ignored));
}

int fc_copy_batch_v1(cu_ptr *dst, cu_ptr *src, size_t *bytes, size_t nr,
		     struct cu_copy_attr *attr, size_t *attr_idx, size_t nr_attrs,
		     size_t *ret_fail, cu_stream s)
{
	struct fc_ctx *c;
	size_t ignored;

	ENTER_CTX(copy_batch_v1, &c);
	return fc_leave(batch(c, dst, src, bytes, nr, attr, attr_idx, nr_attrs, s,
			      ret_fail ? ret_fail : &ignored));
}

int fc_set8(cu_ptr dst, unsigned char byte, size_t n, cu_stream stream)
{
	struct fc_stream *s;
	struct fc_ctx *c;
	struct fc_op *op;

	ENTER_CTX(set8, &c);
	s = fc_stream_find(c, stream);
	if (!s)
		return fc_leave(CU_INVALID_HANDLE);
	if (!n)
		return fc_leave(CU_OK);
	/* Device memory, or host memory that is registered. */
	if (check_end(dst, n) || (!fc_reserved(dst) && !fc_reg_at(dst, n)))
		return fc_leave(CU_INVALID_VALUE);
	op = fc_op_new(OP_SET, 1);
	if (!op)
		return fc_leave(CU_OUT_OF_MEMORY);
	op->copy[0] = (struct fc_copy){ .dst = dst, .src = byte, .bytes = n };
	fc_use_add(s, op, ++fc.next_batch, dst, n, true);
	fc_submit(s, op);
	return fc_leave(CU_OK);
}

/* Aligned, in device memory or registered [H 16850-17085]. */
static int memory_op(struct fc_ctx *c, enum fc_op_kind kind, cu_stream stream, cu_ptr addr,
		     uint64_t value, unsigned flags)
{
	struct fc_stream *s = fc_stream_find(c, stream);
	struct fc_op *op;

	if (!s)
		return CU_INVALID_HANDLE;
	if ((addr & 7) || check_end(addr, 8) || (!fc_reserved(addr) && !fc_reg_at(addr, 8)))
		return CU_INVALID_VALUE;
	op = fc_op_new(kind, 0);
	if (!op)
		return CU_OUT_OF_MEMORY;
	op->addr = addr;
	op->value = value;
	op->flags = flags;
	fc_submit(s, op);
	return CU_OK;
}

int fc_stream_write64(cu_stream s, cu_ptr addr, uint64_t value, unsigned flags)
{
	struct fc_ctx *c;

	ENTER_CTX(stream_write64, &c);
	return fc_leave(flags & ~1u ? CU_INVALID_VALUE :
			memory_op(c, OP_WRITE64, s, addr, value, flags));
}

int fc_stream_wait64(cu_stream s, cu_ptr addr, uint64_t value, unsigned flags)
{
	struct fc_ctx *c;

	ENTER_CTX(stream_wait64, &c);
	return fc_leave(flags > 3 ? CU_INVALID_VALUE :
			memory_op(c, OP_WAIT64, s, addr, value, flags));
}
