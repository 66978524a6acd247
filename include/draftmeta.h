/* draftmeta: the per-step metadata of sparse-attention inference, filled in place, in one launch.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * An engine that runs DeepSeek Sparse Attention (DSA; older texts say NSA) needs, before every draft-extend,
 * target-verify and decode step, a set of small arrays: lengths per token, prefix sums, page tables, schedules. This
 * library writes all of them straight into the engine's own buffers with one kernel launch, on NVIDIA (CUDA), on AMD
 * (HIP) and on the host (OpenMP), bit for bit the same.
 *
 * Simple use:
 *
 *     dm_context *ctx;
 *     dm_open(NULL, &ctx);                                  // picks the backend, once
 *     dm_fill_desc desc = {.size = sizeof desc};            // everything not set is "not wanted"
 *     desc.num_requests = 3;
 *     desc.seq_lens = (dm_vec){seq_lens, 3, DM_INT32};
 *     desc.extend_lens = (dm_vec){extend_lens, 3, DM_INT32};
 *     desc.topk = 2048;
 *     desc.seqlens_expanded = (dm_vec){expanded, 16, DM_INT32};
 *     desc.dsa_cache_seqlens = (dm_vec){clipped, 16, DM_INT32};
 *     dm_fill(ctx, &desc, stream);                          // asynchronous, capture-safe
 *     dm_close(ctx);
 *
 * Words: a request is a sequence being served; a token is one row of attention queries (a request has one in decode,
 * several in verify and draft extend); a slot is a token's place in the KV cache; a page is a run of slots.
 *
 * Threads: every function may be called from any thread. One context may be used by many threads at once, except that
 * dm_close must be the last call on it. dm_last_error is per thread.
 *
 * Errors: every function that can fail returns dm_status. After a failure dm_last_error says which field is wrong and
 * what to do about it. Nothing has been enqueued or written then, but for DM_ERR_CAPACITY, and for DM_ERR_DRIVER and
 * DM_ERR_OUT_OF_MEMORY from a driver, which may fail half-way. */
#ifndef DRAFTMETA_H
#define DRAFTMETA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library and of this header; the build reads it from here. */
#define DM_VERSION_MAJOR 0
#define DM_VERSION_MINOR 1
#define DM_VERSION_PATCH 0

#if defined(__GNUC__)
#define DM_API __attribute__((visibility("default")))
#else
#define DM_API
#endif

/* ---- Status -------------------------------------------------------------------------------------------------- */

/* Values are pinned: they never change meaning. */
typedef enum dm_status {
    DM_OK = 0,
    DM_ERR_ARGUMENT = 1,       /* a pointer argument is NULL, or an enum or flag value is unknown */
    DM_ERR_STRUCT_SIZE = 2,    /* a struct's size is too small, above 65,536, or bytes not known here are not zero */
    DM_ERR_TYPE = 3,           /* an array's type is not one of those its field takes */
    DM_ERR_SHAPE = 4,          /* an array is too short, has a negative extent, or rows that overlap */
    DM_ERR_RANGE = 5,          /* a scalar is negative, or zero where it is used */
    DM_ERR_MISSING = 6,        /* something that a wanted output needs is not given */
    DM_ERR_CONFLICT = 7,       /* two given fields exclude each other */
    DM_ERR_ALIGNMENT = 8,      /* a pointer is not aligned to its element */
    DM_ERR_OVERLAP = 9,        /* DRAFTMETA_CHECK: an output overlaps another array of the call */
    DM_ERR_POINTER = 10,       /* DRAFTMETA_CHECK: memory is not this device's, or its allocation is too small */
    DM_ERR_CAPACITY = 11,      /* dm_fill_draft_extend: more tokens than the buffers hold; the prefix was written */
    DM_ERR_CAPTURE = 12,       /* asked to wait on a stream that is being captured */
    DM_ERR_NO_BACKEND = 13,    /* the backend asked for, or any at all, cannot be had here */
    DM_ERR_DRIVER = 14,        /* the GPU driver is there and failed; dm_last_error has its words */
    DM_ERR_OUT_OF_MEMORY = 15, /* host or device memory is exhausted */
    DM_ERR_CONFIG = 16         /* an environment variable has a value that cannot be used */
} dm_status;

/* The enumerator's name, "DM_ERR_SHAPE" for example; never NULL, "unknown status" for other numbers. Static storage. */
DM_API const char *dm_status_string(dm_status status);

/* What went wrong in this thread's last failed call, naming the field and the next step to take; "" before the first
 * failure. Successful calls leave it as it is. Valid until this thread's next failure. */
DM_API const char *dm_last_error(void);

/* "0.1.0": the version of the library that is loaded. Static storage. */
DM_API const char *dm_version(void);

/* ---- Arrays -------------------------------------------------------------------------------------------------- */

/* Element types. Values are pinned. */
typedef enum dm_type { DM_INT32 = 1, DM_INT64 = 2 } dm_type;

/* A contiguous array in the context's memory. data NULL: not given (len must then be 0). */
typedef struct dm_vec {
    void *data;
    int64_t len; /* elements */
    dm_type type;
} dm_vec;

/* A matrix in the context's memory, elements of a row adjacent. data NULL: not given (rows or cols must then be 0). */
typedef struct dm_table {
    void *data;
    int64_t rows, cols;
    int64_t row_stride; /* elements from one row to the next, at least cols; 0 means cols */
    dm_type type;       /* DM_INT32 in every table of this version */
} dm_table;

/* A queue of the context's device: CUstream / cudaStream_t, hipStream_t. NULL is the default stream. The CPU backend
 * ignores it: there a call has finished when it returns. */
typedef void *dm_stream;

/* ---- Backends and contexts ----------------------------------------------------------------------------------- */

typedef struct dm_context dm_context;

/* How to open a context. Set size to sizeof(dm_options); zero means the default in every field. */
typedef struct dm_options {
    size_t size;
    const char *backend; /* "cuda", "hip" or "cpu"; NULL: the DRAFTMETA_BACKEND variable, else the first that works */
    int32_t device;      /* ordinal among the backend's devices */
    int32_t threads;     /* CPU backend: the most threads of a fill, up to 1024; 0: OpenMP's choice (OMP_NUM_THREADS) */
} dm_options;

/* Why a backend can be used or not. Values are pinned. */
typedef enum dm_backend_state {
    DM_BACKEND_READY = 0,
    DM_BACKEND_NO_DRIVER = 1,      /* the vendor's driver library is not installed */
    DM_BACKEND_NO_DEVICE = 2,      /* a driver, but no device */
    DM_BACKEND_NO_DEVICE_CODE = 3, /* this libdraftmeta has no code for this vendor's devices */
    DM_BACKEND_DRIVER_TOO_OLD = 4,
    DM_BACKEND_DRIVER_FAILED = 5 /* a driver that is there and cannot be used; reason has its words */
} dm_backend_state;

/* What is known of one backend. Set size to sizeof(dm_backend_info) before the call; the rest is written. */
typedef struct dm_backend_info {
    size_t size;
    char name[16];
    dm_backend_state state;
    int32_t device_count;
    int32_t device;          /* the context's ordinal; 0 from dm_backend_query */
    char device_name[128];   /* "" where there is no device */
    char driver_version[64]; /* "" where there is no driver */
    char oldest_driver[64];  /* the oldest version that works; "" where none is needed */
    char reason[256];        /* why it is not ready; "" if it is */
} dm_backend_info;

/* The number of backends this library knows, whether they work here or not. */
DM_API int32_t dm_backend_count(void);

/* Describes backend index (0 .. dm_backend_count() - 1), in the order in which dm_open tries them. Looks for the driver
 * and its devices; creates no device context.
 * DM_ERR_ARGUMENT: info NULL, index out of range. DM_ERR_STRUCT_SIZE: info->size. DM_ERR_CONFIG: a driver path that is
 * not absolute. */
DM_API dm_status dm_backend_query(int32_t index, dm_backend_info *info);

/* Picks a backend and opens one of its devices. The choice: options->backend, else the variable DRAFTMETA_BACKEND, else
 * the first of CUDA, HIP, CPU that works. A backend named either way is used or is an error (DM_ERR_NO_BACKEND), never
 * replaced. Unnamed, a backend is passed over where its vendor has no driver or no device, and, with one line on
 * stderr, where the library was built without its device code; a driver that is there and fails is an error.
 * Loads all device code and allocates all it will ever need, so that the first fill may be inside a stream capture.
 * options NULL: all defaults. On failure *ctx is NULL.
 * DM_ERR_ARGUMENT: ctx NULL, an unknown backend name. DM_ERR_RANGE: a negative device or threads, or a device that is
 * not there. DM_ERR_STRUCT_SIZE, DM_ERR_NO_BACKEND, DM_ERR_DRIVER, DM_ERR_OUT_OF_MEMORY, DM_ERR_CONFIG.
 *
 * Environment, read here and in dm_backend_query: DRAFTMETA_BACKEND (cuda, hip, cpu); DRAFTMETA_CHECK=1 (check
 * overlaps, devices and allocation sizes on every fill); DRAFTMETA_GRAPHS=1 (fills that repeat go by graphs: see
 * dm_fill); DRAFTMETA_LOG=0 (no warnings); DRAFTMETA_CUDA_LIBRARY and DRAFTMETA_HIP_LIBRARY (absolute path of the
 * driver library to open instead of the system's). Set-user-ID programs and those with file capabilities read none of
 * them. */
DM_API dm_status dm_open(const dm_options *options, dm_context **ctx);

/* Frees the context. Work that it enqueued must have finished. NULL is allowed. */
DM_API void dm_close(dm_context *ctx);

/* Describes the backend and device that ctx uses. Errors as dm_backend_query. */
DM_API dm_status dm_context_info(const dm_context *ctx, dm_backend_info *info);

/* ---- Memory, for tools and tests that are written once for all backends ------------------------------------------ */

/* Allocates device memory (host memory on the CPU backend), aligned to at least 64 bytes, contents undefined. bytes 0
 * gives a pointer that may be freed and not read. May synchronise the device.
 * DM_ERR_ARGUMENT, DM_ERR_OUT_OF_MEMORY, DM_ERR_DRIVER; on failure *ptr is NULL. */
DM_API dm_status dm_malloc(dm_context *ctx, size_t bytes, void **ptr);

/* Frees what dm_malloc gave; NULL is allowed. DM_ERR_ARGUMENT, DM_ERR_DRIVER. */
DM_API dm_status dm_free(dm_context *ctx, void *ptr);

/* Copies bytes from host memory into the context's memory (dm_download: the other way), after all work enqueued on
 * stream before; returns when the copy is done. Not for a stream that is being captured.
 * DM_ERR_ARGUMENT, DM_ERR_DRIVER, DM_ERR_OUT_OF_MEMORY. */
DM_API dm_status dm_upload(dm_context *ctx, void *dst, const void *src, size_t bytes, dm_stream stream);
DM_API dm_status dm_download(dm_context *ctx, void *dst, const void *src, size_t bytes, dm_stream stream);

/* Waits until all work enqueued on stream has finished. DM_ERR_ARGUMENT, DM_ERR_DRIVER, DM_ERR_OUT_OF_MEMORY. */
DM_API dm_status dm_sync(dm_context *ctx, dm_stream stream);

/* ---- The fill ------------------------------------------------------------------------------------------------ */

/* One entry of DeepGEMM's paged-MQA schedule formulas. SPLIT, the KV tokens of a segment, is 256 in all of them.
 * Formulas: DeepGEMM 54e2261 (SM90, SM100) and its predecessors (SMXX). Values are pinned. */
typedef enum dm_schedule_variant {
    DM_SCHEDULE_SMXX = 1, /* one kernel for every architecture: the remainder goes to the first slots */
    DM_SCHEDULE_SM90 = 2, /* the remainder goes to the last slots */
    DM_SCHEDULE_SM100 = 3 /* segments of a request's tokens adjacent */
} dm_schedule_variant;

/* What a schedule calls a request. Values are pinned. */
typedef enum dm_schedule_unit {
    DM_UNIT_TOKEN = 1,  /* each token by itself: n = 1, c = local(its e) */
    DM_UNIT_REQUEST = 2 /* a request's n = extend_len tokens together: c = local(the e of its last token), local(kv) */
} dm_schedule_unit;

/* A work schedule over the KV segments of all tokens, wanted if table.data is given.
 *
 * With S = 256, d = max(1, divisor), B units covered and, per unit u,
 *     seg[u] = ceil(floor(c[u] / d) / S),  P[u] = seg[0] + ... + seg[u],
 *     a = ceil(n / 2) (SMXX, SM90; 1 for n = 1), a = n (SM100),
 *     total = P[B-1] * a;  quot, rem = divmod(total, slots)
 *     start(i) = i * quot + min(i, rem)                     SMXX, SM100
 *     start(i) = i * quot + max(0, i - (slots - rem))       SM90
 * entry i (0 <= i <= slots) is, for start(i) < total, the first u with P[u] * a > start(i), o = start(i) - P[u-1] * a:
 *     (u * a + o / seg[u], o % seg[u])                      SMXX, SM90
 *     (u * a, o / a)                                        SM100
 * and the sentinel (B * a, 0) for start(i) >= total: the last entry always, all of them if every c is 0.
 *
 * local is that of dm_fill_desc, the KV tokens that this rank holds: all of them without dcp_world.
 * Unit TOKEN covers the E tokens of the fill, padding included (c = 0). Unit REQUEST covers floor(E / n) requests, c =
 * 0 from num_requests on. At most INT32_MAX tokens are covered. */
typedef struct dm_schedule {
    dm_vec table; /* out int32 [slots + 1][2], row-major: at least 2 * (slots + 1) elements */
    dm_schedule_variant variant;
    dm_schedule_unit unit;
    int32_t slots;   /* >= 1: usually the number of multiprocessors */
    int32_t divisor; /* KV tokens per entry of a pooled or compressed cache; 0 means 1 */
} dm_schedule;

/* Sticky flags of a report. Values are pinned. */
enum {
    DM_REPORT_KV_CLAMPED = 1,     /* a KV length was negative or above INT32_MAX and was clamped */
    DM_REPORT_Q_CLAMPED = 2,      /* an extend length was negative or above INT32_MAX and was clamped */
    DM_REPORT_BAD_POOL = 4,       /* a pool index, or a block table's row, was out of range */
    DM_REPORT_NARROW = 8,         /* a sum was stored into an int32 that could not hold it */
    DM_REPORT_TOKENS_DROPPED = 16 /* there were more tokens than the buffers hold */
};

/* What fills found in their inputs, in the context's memory. The caller zeroes it once; fills only OR and raise, so
 * that a report may be shared by any number of fills and read whenever it suits. */
typedef struct dm_report {
    uint32_t flags;         /* DM_REPORT_*, OR-ed */
    uint32_t bad_request;   /* highest r + 1 of a request with KV_CLAMPED, Q_CLAMPED or BAD_POOL; 0: none */
    uint64_t tokens_wanted; /* largest T */
} dm_report;

/* Flags of a fill. Values are pinned. */
enum {
    DM_FILL_FULL_ROWS = 1,          /* zero the other columns of every written table row */
    DM_FILL_CONTEXT_PER_REQUEST = 2 /* context_lens are made from kv[r] for all of r's tokens; needs extend_len */
};

/* One fill: inputs, outputs and the few scalars. Set size to sizeof(dm_fill_desc) and zero the rest; zero means "not
 * given" or "not wanted" in every field. Arrays are in the context's memory and are read when the stream reaches the
 * fill; this struct is read during the call only.
 *
 * Per request r < R = num_requests:
 *     kv[r]  = clamp(seq_lens[r] + seq_len_bias, 0, INT32_MAX)               the sum is exact
 *     q[r]   = clamp(extend_lens[r], 0, INT32_MAX), or extend_len, or
 *              clamp(query_start_loc[r + 1] - query_start_loc[r], 0, INT32_MAX)   the difference is exact
 *     off[r] = q[0] + ... + q[r - 1];  T = off[R] tokens in all
 *     token t = off[r] + j, 0 <= j < q[r], sees  e[t] = max(0, kv[r] - q[r] + 1 + j)  KV tokens
 *
 *     step            query lengths                             seq_len_bias
 *     draft extend    extend_lens or query_start_loc, or        0
 *                     extend_len = n
 *     target verify   extend_len = n                            n (seq_lens do not count the draft tokens yet)
 *     decode          extend_len = 1                            0
 *
 * Decode context parallelism, where the W = max(1, dcp_world) ranks of a group each hold a part of every KV cache, I =
 * max(1, dcp_interleave) tokens at a time. Of x KV tokens, rank dcp_rank holds
 *     local(x) = the number of p, 0 <= p < x, with floor(p / I) mod W = dcp_rank;  x itself for W = 1
 * context_lens and schedules, which are for the indexer's attention over the rank's own cache, are made from local(e),
 * or local(kv), instead of e and kv. Nothing else is: all other outputs, topk, and the liveness of columns count the
 * tokens of all ranks. A block table of the rank's pages of B tokens each, I dividing B, thus has page_size = B * W.
 *
 * Compression, where the indexer's cache has one entry for every D = max(1, context_divisor) KV tokens: context_lens
 * are divided by D, rounded down, after local. Schedules have a divisor of their own, and nothing else is divided.
 *
 * Capacity: M is the smallest length of the given per-token outputs (len - 1 of dsa_cu_seqlens_k, rows of the page
 * tables); none given: no bound. Tokens t >= M are dropped, which sets DM_REPORT_TOKENS_DROPPED; those that stay keep
 * the e of the full q. Padding that M cuts off is not reported.
 *
 * Padding, for captured graphs: with P = padded_tokens, E = min(max(P, T), M) tokens are written. Tokens T .. E - 1 get
 * length 0, the prefix repeated, token_to_req R + t - T and no live columns; requests R .. max(padded_requests, R) - 1
 * get length 0 and the prefixes repeated. Nothing beyond is touched. A captured graph freezes num_requests,
 * padded_tokens and padded_requests; a smaller batch replays with seq_lens and extend lengths of zero.
 *
 * Columns: c of a page table's row is live if c * page < kv[r], c < cols, and the source has that column. Widths never
 * change lengths. If a page table is wanted, each request's pool index (or block-table row) is checked: out of range it
 * has no live columns, keeps its lengths and sets DM_REPORT_BAD_POOL.
 *
 * Prefixes are summed in 64 bits; an int32 stores the low 32 bits and DM_REPORT_NARROW is set where a stored value did
 * not fit. R = 0 or T = 0 still writes the leading zeros, num_tokens, the schedules' sentinels and the padding.
 *
 * Sizes: per-request inputs hold R elements (query_start_loc R + 1), per-request outputs max(R, padded_requests)
 * (prefixes one more); longer arrays are fine. At R = 0 the lengths may be left out. req_to_token and block_table may
 * have any number of rows: requests without one are bad (DM_REPORT_BAD_POOL). They, and req_pool_indices, may be given
 * without a page table. A query length of 0 is legal: such a request has no tokens.
 *
 * Precondition: no output overlaps an input or another output of the same call, across all descriptors of
 * dm_fill_many, reports apart. Exception: with extend_len = 1, context_lens, seqlens_expanded and cache_seqlens may be
 * one buffer; context_lens only with W = D = 1. DRAFTMETA_CHECK=1 checks it; a table counts as all from its first to
 * its last element.
 *
 * Source of the formulas: SGLang 0.5.23 (kernels/ops/attention/dsa), vLLM 0.33.0
 * (v1/attention/backends/mla/indexer.py), DeepGEMM 54e2261. */
typedef struct dm_fill_desc {
    size_t size;
    uint32_t flags;       /* DM_FILL_* */
    int32_t num_requests; /* R */

    /* Inputs */
    dm_vec seq_lens;         /* int32|int64 [R] KV tokens of each request */
    dm_vec extend_lens;      /* int32|int64 [R] query tokens of each request; exactly one of these three */
    dm_vec query_start_loc;  /* int32|int64 [R + 1] their prefix */
    int32_t extend_len;      /* the same number n >= 1 for every request */
    int32_t seq_len_bias;    /* added to every seq_lens entry; >= 0 */
    dm_table req_to_token;   /* int32 [pool][context]: slot of each KV token */
    dm_vec req_pool_indices; /* int32|int64 [R] row of req_to_token; not given: r itself */
    dm_table block_table;    /* int32 [R][pages]: pages, instead of req_to_token; for page_table only */
    int32_t topk;            /* KV tokens that sparse attention keeps; >= 1 if a dsa_* output is wanted */
    int32_t pool_size;       /* k: tokens pooled into one index key; 0 means 1 */
    int32_t page_size;       /* tokens of a page; >= 1 if page_table is wanted */
    int32_t padded_requests; /* 0: no padding */
    int64_t padded_tokens;   /* P; 0: no padding */
    int32_t context_divisor; /* D: KV tokens per entry of a compressed cache, for context_lens; 0 means 1 */
    int32_t dcp_world;       /* W: ranks that share a KV cache; 0 means 1 */
    int32_t dcp_rank;        /* this one, below W */
    int32_t dcp_interleave;  /* I: tokens that a rank holds in a row; 0 means 1 */

    /* Outputs per token, int32 */
    dm_vec seqlens_expanded;  /* [M] e */
    dm_vec dsa_cache_seqlens; /* [M] s = min(e, topk) for k = 1, min(e - e % k, topk) + e % k for k > 1 */
    dm_vec dsa_cu_seqlens_k;  /* [M + 1] exclusive prefix of s, entries 0 .. E */
    dm_vec token_to_req;      /* [M] r */
    dm_vec context_lens;   /* [M] local(e) / D; of kv[r] with DM_FILL_CONTEXT_PER_REQUEST (it reads as [R][n] then) */
    dm_table page_table_1; /* [M][cols] req_to_token[pool[r]][c] */
    dm_table page_table;   /* [M][cols] req_to_token[pool[r]][c * page_size] / page_size, rounded toward zero; or
                              block_table[r][c] */

    /* Outputs per request, int32 */
    dm_vec cache_seqlens; /* [R] kv */
    dm_vec cu_seqlens_q;  /* [R + 1] exclusive prefix of q, each entry min(off[r], M) */
    dm_vec cu_seqlens_k;  /* [R + 1] exclusive prefix of kv */

    /* Outputs per fill */
    dm_vec num_tokens;        /* int32 [1] min(T, M) */
    dm_schedule schedules[2]; /* unit TOKEN needs a per-token output or padded_tokens */
    dm_report *report;        /* in the context's memory, aligned to 8 bytes */
} dm_fill_desc;

/* Enqueues one fill on stream, as one kernel launch: no allocation, no synchronisation, no host read of the arrays.
 * Legal during stream capture. The calling thread's current device is as before afterwards.
 * On CUDA with DRAFTMETA_GRAPHS=1, outside of captures, a launch that equals one of the last 8 distinct ones on its
 * stream may be made by launching a graph of that kernel, for less host time and, as its parameter then comes from
 * device memory, more time on the GPU (docs/performance.md): the same work in the same order. The first 4 streams that
 * fill, of default priority and of the primary context itself, have such graphs for as long as ctx is open. What else
 * is set for a stream (access-policy windows, synchronisation domains) does not reach them, and profilers show graph
 * launches. Bad values in the arrays never fail the call: they are clamped or skipped as above and the report says so.
 * DM_ERR_ARGUMENT, _STRUCT_SIZE, _TYPE, _SHAPE, _RANGE, _MISSING, _CONFLICT, _ALIGNMENT: the descriptor, field named in
 * dm_last_error; with DRAFTMETA_CHECK=1 also _OVERLAP and _POINTER; _DRIVER, _OUT_OF_MEMORY: the launch failed. */
DM_API dm_status dm_fill(dm_context *ctx, const dm_fill_desc *desc, dm_stream stream);

/* Checks desc as dm_fill does, with the same statuses and words, and enqueues nothing: for engines that keep their
 * descriptors and want to know at start. DM_OK: dm_fill takes it for as long as neither it nor the memory changes. */
DM_API dm_status dm_fill_check(dm_context *ctx, const dm_fill_desc *desc);

/* The most descriptors that one launch takes. */
#define DM_FILL_MANY_MAX 8

/* Enqueues count fills, DM_FILL_MANY_MAX to a launch: the sibling backends of multi-step drafting. All descriptors are
 * checked before any is enqueued; errors as dm_fill, with the descriptor's index. No fill may read what another of the
 * same call writes. count 0 is DM_OK. */
DM_API dm_status dm_fill_many(dm_context *ctx, const dm_fill_desc *const *descs, size_t count, dm_stream stream);

/* Draft-extend lengths only, without a descriptor: per request r of num_requests, for j < extend_seq_lens[r],
 *     out_seqlens_expanded[t]  = e = max(0, seq_lens[r] - extend_seq_lens[r] + 1 + j)
 *     out_dsa_cache_seqlens[t] = min(e, topk)
 * All arrays are int32 in the context's memory; either output may be NULL. token_capacity is the length of the
 * outputs: of T tokens the first min(T, token_capacity) are written, the rest of the buffers is untouched.
 * tokens_written (host memory) NULL: asynchronous as dm_fill. Otherwise the call waits for the stream, stores T, which
 * may be more than was written, and returns DM_ERR_CAPACITY if T > token_capacity. Calls that wait take turns.
 * DM_ERR_CAPTURE: asked to wait while stream is being captured; nothing was enqueued. Else as dm_fill. */
DM_API dm_status dm_fill_draft_extend(dm_context *ctx, const int32_t *extend_seq_lens, const int32_t *seq_lens,
                                      int32_t num_requests, int32_t topk, int32_t *out_seqlens_expanded,
                                      int32_t *out_dsa_cache_seqlens, int64_t token_capacity, int64_t *tokens_written,
                                      dm_stream stream);

#ifdef __cplusplus
}
#endif

#endif
