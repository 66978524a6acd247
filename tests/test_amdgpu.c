/* The interpreter of AMD machine code (tests/amdgpu), instruction by instruction, where their rules are easy to get
 * wrong. AMDGPU_INTERPRETER names the library; SKIP without. */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amdgpu/interpreter.h"
#include "suite.h"

#define LENGTH(list) (sizeof(list) / sizeof *(list))

enum { SKIPPED = 77, VCC = 106, EXEC = 126 };

static void (*run_snippet)(const char *target, const char *text, amdgpu_wave *wave);
static uint32_t memory[64];
static amdgpu_wave wave;

/* A wave with all lanes active; v0 has their numbers, and v1 four times those. */
static void begin(unsigned lanes)
{
    memset(&wave, 0, sizeof wave);
    memset(memory, 0, sizeof memory);
    wave.lanes = lanes;
    wave.memory = memory;
    wave.memory_bytes = sizeof memory;
    wave.scalars[EXEC] = ~0u;
    wave.scalars[EXEC + 1] = lanes == 64 ? ~0u : 0;
    for (uint32_t lane = 0; lane < 64; lane++) {
        wave.vectors[0][lane] = lane;
        wave.vectors[1][lane] = 4 * lane;
    }
}

static void run(const char *text)
{
    char program[2000];
    snprintf(program, sizeof program, "%s\ns_endpgm\n", text);
    run_snippet(wave.lanes == 64 ? "gfx90a" : "gfx1030", program, &wave);
}

static void expect_scalar(int index, uint32_t value)
{
    ck_assert_msg(wave.scalars[index] == value, "s%d is %#x, not %#x", index, wave.scalars[index], value);
}

static void expect_lane(int vector, int lane, uint32_t value)
{
    const uint32_t got = wave.vectors[vector][lane];
    ck_assert_msg(got == value, "v%d has %#x in lane %d, not %#x", vector, got, lane, value);
}

/* ---- Scalars ---------------------------------------------------------------------------------------------------- */

/* name s2, s0, s1 with SCC before and after it. */
static const struct {
    const char *name;
    uint32_t a, b, result;
    bool scc_in, scc_out;
} scalar_operations[] = {
    {"s_add_u32", 0xffffffff, 1, 0, false, true},
    {"s_add_i32", 0x7fffffff, 1, 0x80000000, false, true}, /* overflow, not carry */
    {"s_add_i32", 0xffffffff, 1, 0, true, false},
    {"s_addc_u32", 0xffffffff, 0, 0, true, true},
    {"s_sub_u32", 1, 2, 0xffffffff, false, true},
    {"s_subb_u32", 5, 5, 0xffffffff, true, true},
    {"s_subb_u32", 5, 0xffffffff, 5, true, true},
    {"s_sub_i32", 0x80000000, 1, 0x7fffffff, false, true},
    {"s_and_b32", 1, 2, 0, true, false},
    {"s_andn2_b32", 7, 2, 5, false, true},
    {"s_lshl_b32", 1, 33, 2, false, true}, /* counts modulo 32 */
    {"s_ashr_i32", 0x80000000, 31, 0xffffffff, false, true},
    {"s_min_i32", 0xffffffff, 1, 0xffffffff, false, true},
    {"s_max_u32", 1, 0xffffffff, 0xffffffff, true, false},
    {"s_mul_i32", 0x10000, 0x10001, 0x10000, true, true}, /* leaves SCC */
    {"s_mul_hi_i32", 0xffffffff, 2, 0xffffffff, true, true},
    {"s_mul_hi_u32", 0xffffffff, 2, 1, false, false},
    {"s_cselect_b32", 3, 4, 3, true, true},
    {"s_cselect_b32", 3, 4, 4, false, false},
    {"s_bfe_u32", 0xabcd, 0x80004, 0xbc, false, true},
    {"s_bfe_i32", 0xf0, 0x40004, 0xffffffff, false, true},
    {"s_bfe_u32", 0xabcd, 4, 0, true, false}, /* no width */
    {"s_bfm_b32", 4, 8, 0xf00, false, false},
    {"s_lshl2_add_u32", 0x40000000, 5, 5, false, true},
};

START_TEST(scalars)
{
    char text[64];
    for (size_t i = 0; i < LENGTH(scalar_operations); i++) {
        begin(64);
        wave.scalars[0] = scalar_operations[i].a;
        wave.scalars[1] = scalar_operations[i].b;
        wave.scc = scalar_operations[i].scc_in;
        snprintf(text, sizeof text, "%s s2, s0, s1", scalar_operations[i].name);
        run(text);
        ck_assert_msg(wave.scalars[2] == scalar_operations[i].result && wave.scc == scalar_operations[i].scc_out,
                      "case %zu, %s: %#x, SCC %d", i, scalar_operations[i].name, wave.scalars[2], wave.scc);
    }
}
END_TEST

START_TEST(scalars_of_64_bits)
{
    begin(64);
    wave.scalars[0] = 0x80000001, wave.scalars[1] = 0x80000000;
    run("s_ashr_i64 s[2:3], s[0:1], 1\ns_lshl_b64 s[4:5], s[0:1], 1\ns_mov_b64 s[6:7], -2\n"
        "s_ff1_i32_b64 s8, s[0:1]\ns_bcnt1_i32_b64 s9, s[0:1]\ns_cmp_lg_u64 s[0:1], s[2:3]");
    expect_scalar(2, 0x40000000);
    expect_scalar(3, 0xc0000000);
    expect_scalar(4, 2);
    expect_scalar(5, 1);
    expect_scalar(7, 0xffffffff);
    expect_scalar(8, 0);
    expect_scalar(9, 3);
    ck_assert(wave.scc);
}
END_TEST

/* Constants within an instruction have 16 bits and a sign; s_cmpk_*_u32's have none. */
START_TEST(inner_constants)
{
    begin(64);
    wave.scalars[1] = 3;
    run("s_movk_i32 s0, 0xfffe\ns_mulk_i32 s1, 0xffff\ns_cmpk_lt_i32 s1, 0xffff\ns_cselect_b32 s2, 1, 0\n"
        "s_cmpk_gt_u32 s1, 0xffff\ns_cselect_b32 s3, 1, 0");
    expect_scalar(0, 0xfffffffe);
    expect_scalar(1, 0xfffffffd);
    expect_scalar(2, 1);
    expect_scalar(3, 1);
}
END_TEST

START_TEST(a_loop)
{
    begin(64);
    run("s_movk_i32 s0, 0x5\ns_add_u32 s1, s1, s0\ns_sub_u32 s0, s0, 1\ns_cmp_lg_u32 s0, 0\ns_cbranch_scc1 65532");
    expect_scalar(1, 15);
    ck_assert_uint_eq(wave.executed, 22);
}
END_TEST

/* ---- Masks ------------------------------------------------------------------------------------------------------ */

START_TEST(only_active_lanes_are_written)
{
    begin(64);
    run("s_mov_b64 exec, 5\nv_mov_b32_e32 v2, 7\nv_add_u32_e32 v0, 1, v0");
    expect_lane(2, 0, 7);
    expect_lane(2, 1, 0);
    expect_lane(2, 2, 7);
    expect_lane(0, 3, 3);
}
END_TEST

START_TEST(exec_is_saved)
{
    begin(32);
    run("v_cmp_gt_u32_e32 vcc_lo, 4, v0\ns_and_saveexec_b32 s0, vcc_lo\nv_mov_b32_e32 v2, 1\n"
        "s_xor_b32 exec_lo, exec_lo, s0\nv_mov_b32_e32 v2, 2");
    expect_scalar(VCC, 0xf);
    expect_scalar(0, 0xffffffff);
    expect_lane(2, 3, 1);
    expect_lane(2, 4, 2);
}
END_TEST

/* Inactive lanes compare as 0. On gfx10 v_cmpx writes exec alone. */
START_TEST(comparisons_and_exec)
{
    begin(32);
    wave.scalars[VCC] = 99;
    run("s_mov_b32 exec_lo, 0xff\nv_cmp_le_i32_e64 s0, -1, v0\nv_cmpx_lt_u32_e32 5, v0");
    expect_scalar(0, 0xff);
    expect_scalar(EXEC, 0xc0);
    expect_scalar(VCC, 99);
    begin(64);
    run("v_cmpx_lt_u32_e32 vcc, 33, v0");
    expect_scalar(EXEC, 0);
    expect_scalar(EXEC + 1, 0xfffffffc);
    expect_scalar(VCC + 1, 0xfffffffc);
}
END_TEST

START_TEST(choices_by_mask)
{
    begin(64);
    wave.scalars[2] = 0xaaaaaaaa, wave.scalars[3] = 1;
    run("v_cndmask_b32_e64 v2, 10, 20, s[2:3]");
    expect_lane(2, 0, 10);
    expect_lane(2, 1, 20);
    expect_lane(2, 32, 20);
    expect_lane(2, 33, 10);
}
END_TEST

/* ---- Vectors ---------------------------------------------------------------------------------------------------- */

START_TEST(carries)
{
    begin(64);
    for (int lane = 0; lane < 64; lane++)
        wave.vectors[2][lane] = lane % 2 ? 0xffffffff : 5;
    run("v_add_co_u32_e32 v3, vcc, 1, v2\nv_addc_co_u32_e32 v4, vcc, 0, v0, vcc\nv_sub_co_u32_e32 v5, vcc, v0, v2\n"
        "v_subb_co_u32_e32 v6, vcc, 0, v0, vcc");
    expect_lane(3, 0, 6);
    expect_lane(3, 1, 0);
    expect_lane(4, 2, 2);
    expect_lane(4, 3, 4);
    expect_lane(5, 2, 0xfffffffd);
    expect_lane(6, 6, (uint32_t)-6);
    expect_lane(6, 3, (uint32_t)-4);
}
END_TEST

/* Reversed shifts have the count first; it counts modulo the width. */
START_TEST(shifts)
{
    begin(64);
    wave.vectors[2][0] = 0x80000000, wave.vectors[3][0] = 0x80000000;
    run("v_ashrrev_i32_e32 v4, 31, v2\nv_lshrrev_b32_e32 v5, 63, v2\nv_ashrrev_i64 v[6:7], 36, v[2:3]\n"
        "v_lshlrev_b64 v[8:9], 1, v[2:3]\nv_alignbit_b32 v10, v3, v2, 4\nv_bfe_i32 v11, v2, 30, 2\nv_bfe_u32 v12, v2, "
        "31, 1");
    expect_lane(4, 0, 0xffffffff);
    expect_lane(5, 0, 1);
    expect_lane(6, 0, 0xf8000000);
    expect_lane(7, 0, 0xffffffff);
    expect_lane(8, 0, 0);
    expect_lane(9, 0, 1);
    expect_lane(10, 0, 0x08000000);
    expect_lane(11, 0, 0xfffffffe);
    expect_lane(12, 0, 1);
}
END_TEST

START_TEST(products_and_saturation)
{
    begin(32);
    wave.vectors[2][0] = 0xffffffff;
    wave.vectors[4][0] = 0xffffffff, wave.vectors[5][0] = 0xffffffff;
    run("v_mad_u64_u32 v[6:7], s0, v2, v2, v[4:5]\nv_mad_i64_i32 v[8:9], null, v2, v2, 0\nv_mul_hi_u32 v10, v2, v2\n"
        "v_sub_nc_u32_e64 v11, v0, 5 clamp\nv_sub_nc_u32_e32 v12, v0, v2\nv_mad_u32_u24 v13, v2, 2, 1");
    expect_lane(6, 0, 0);
    expect_lane(7, 0, 0xfffffffe);
    expect_scalar(0, 1);
    expect_lane(8, 0, 1);
    expect_lane(9, 0, 0);
    expect_lane(10, 0, 0xfffffffe);
    expect_lane(11, 4, 0);
    expect_lane(11, 7, 2);
    expect_lane(12, 0, 1);
    expect_lane(13, 0, 0x1ffffff);
}
END_TEST

/* gfx9 zeroes the upper half of a register, gfx10 keeps it. */
START_TEST(halves)
{
    begin(64);
    wave.vectors[2][1] = 0xabcd0005;
    run("v_sub_u16_e32 v2, v0, v2");
    expect_lane(2, 1, 0xfffc);
    begin(32);
    wave.vectors[2][1] = 0xabcd0005;
    run("v_sub_nc_u16 v2, v0, v2");
    expect_lane(2, 1, 0xabcdfffc);
}
END_TEST

START_TEST(parts_of_operands)
{
    begin(64);
    wave.vectors[2][0] = 0x12345678;
    wave.scalars[0] = 7, wave.scalars[1] = 8;
    run("v_or_b32_sdwa v3, v0, v2 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:DWORD src1_sel:BYTE_1\n"
        "v_add_co_u32_sdwa v4, vcc, s0, v2 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:DWORD src1_sel:WORD_1\n"
        "v_pk_mov_b32 v[5:6], s[0:1], s[0:1] op_sel:[1,0]");
    expect_lane(3, 0, 0x56);
    expect_lane(4, 0, 0x1234 + 7);
    expect_lane(5, 9, 8);
    expect_lane(6, 9, 7);
}
END_TEST

/* Quotients of integers are estimated in floats. */
START_TEST(floats)
{
    const float below = -1.5f;
    begin(64);
    memcpy(&wave.vectors[2][0], &below, sizeof below);
    run("v_cvt_f32_u32_e32 v3, 0xffffff81\nv_cvt_u32_f32_e32 v4, v3\nv_cvt_u32_f32_e32 v5, v2\n"
        "v_cmp_ge_f32_e64 s[0:1], |v2|, 1.0\nv_fma_f32 v6, -v2, 2.0, 1.0\nv_trunc_f32_e32 v7, v2");
    expect_lane(3, 0, 0x4f800000); /* rounded to 2^32 */
    expect_lane(4, 0, 0xffffffff);
    expect_lane(5, 0, 0);
    ck_assert(wave.scalars[0] & 1);
    expect_lane(6, 0, 0x40800000);
    expect_lane(7, 0, 0xbf800000);
}
END_TEST

/* A small float is a double where 64 bits are read, whatever they are taken for. */
START_TEST(floats_of_64_bits)
{
    begin(64);
    run("v_mov_b64_e32 v[2:3], -2.0\ns_mov_b64 s[0:1], 1.0\nv_mov_b32_e32 v4, -2.0");
    expect_lane(2, 9, 0);
    expect_lane(3, 9, 0xc0000000);
    expect_scalar(0, 0);
    expect_scalar(1, 0x3ff00000);
    expect_lane(4, 9, 0xc0000000);
}
END_TEST

/* ---- Across lanes ----------------------------------------------------------------------------------------------- */

START_TEST(lanes_by_number)
{
    begin(64);
    run("v_readlane_b32 s0, v1, 33\nv_writelane_b32 v2, 9, 5\ns_mov_b64 exec, 48\nv_readfirstlane_b32 s1, v0\n"
        "s_mov_b64 exec, 0\nv_readfirstlane_b32 s2, v1");
    expect_scalar(0, 132);
    expect_scalar(1, 4);
    expect_scalar(2, 0);
    expect_lane(2, 5, 9);
}
END_TEST

START_TEST(counts_of_lanes_below)
{
    begin(64);
    run("v_mbcnt_lo_u32_b32 v2, -1, 0\nv_mbcnt_hi_u32_b32 v2, -1, v2\nv_mbcnt_lo_u32_b32 v3, 5, 0");
    expect_lane(2, 0, 0);
    expect_lane(2, 32, 32);
    expect_lane(2, 63, 63);
    expect_lane(3, 2, 1);
    expect_lane(3, 63, 2);
}
END_TEST

/* The address is of a byte in the wave, modulo its size. */
START_TEST(permutes)
{
    begin(64);
    run("v_add_u32_e32 v2, 4, v1\nds_bpermute_b32 v3, v2, v0\nds_permute_b32 v4, v2, v0");
    expect_lane(3, 0, 1);
    expect_lane(3, 63, 0);
    expect_lane(4, 1, 0);
    expect_lane(4, 0, 63);
    begin(32);
    run("ds_bpermute_b32 v3, v1, v0 offset:124");
    expect_lane(3, 0, 31);
    expect_lane(3, 5, 4);
}
END_TEST

/* Lanes without a source keep what they have, or take 0 under bound_ctrl. */
START_TEST(rows_of_16)
{
    begin(64);
    run("v_mov_b32_e32 v2, 77\nv_mov_b32_dpp v2, v0 row_shr:1 row_mask:0xf bank_mask:0xf\n"
        "v_mov_b32_e32 v3, 77\nv_add_u32_dpp v3, v0, v0 row_shr:1 row_mask:0x3 bank_mask:0xf bound_ctrl:1\n"
        "v_mov_b32_dpp v4, v0 row_bcast:15 row_mask:0xa bank_mask:0xf\n"
        "v_mov_b32_dpp v5, v0 quad_perm:[3,2,1,0] row_mask:0xf bank_mask:0xf");
    expect_lane(2, 0, 77);
    expect_lane(2, 1, 0);
    expect_lane(2, 16, 77);
    expect_lane(2, 63, 62);
    expect_lane(3, 16, 16);
    expect_lane(3, 17, 33);
    expect_lane(3, 40, 77);
    expect_lane(4, 16, 15);
    expect_lane(4, 32, 0);
    expect_lane(5, 4, 7);
}
END_TEST

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

START_TEST(local_memory)
{
    begin(64);
    run("ds_write_b32 v1, v0\ns_mov_b64 exec, 255\nds_read2_b32 v[2:3], v1 offset1:1\ns_mov_b64 exec, 1\n"
        "ds_read_b64 v[4:5], v1 offset:8\nds_read_u8 v6, v1 offset:12\nds_add_rtn_u32 v7, v1, v4 offset:16\n"
        "ds_write2_b32 v1, v4, v5 offset0:10 offset1:12");
    expect_lane(2, 7, 7);
    expect_lane(3, 7, 8);
    expect_lane(4, 0, 2);
    expect_lane(5, 0, 3);
    expect_lane(6, 0, 3);
    expect_lane(7, 0, 4);
    ck_assert_uint_eq(wave.lds[4], 6);
    ck_assert_uint_eq(wave.lds[10], 2);
    ck_assert_uint_eq(wave.lds[12], 3);
}
END_TEST

static void point_to_memory(void)
{
    const uintptr_t address = (uintptr_t)memory;
    wave.scalars[0] = (uint32_t)address;
    wave.scalars[1] = (uint32_t)(address >> 32);
}

START_TEST(global_memory)
{
    begin(64);
    point_to_memory();
    memory[9] = 0x80;
    run("s_load_dwordx2 s[4:5], s[0:1], 0x20\nglobal_store_dword v1, v0, s[0:1]\ns_mov_b64 exec, 3\n"
        "global_load_dwordx2 v[2:3], v1, s[0:1] offset:16\nglobal_atomic_umax v1, v2, s[0:1]\n"
        "global_atomic_or v4, v1, v2, s[0:1] offset:4 glc\nglobal_load_ubyte v5, v1, s[0:1] offset:248");
    expect_scalar(5, 0x80);
    expect_lane(2, 1, 5);
    expect_lane(3, 1, 6);
    ck_assert_uint_eq(memory[0], 4);
    expect_lane(4, 0, 5); /* what umax left */
    expect_lane(4, 1, 2);
    ck_assert_uint_eq(memory[1], 5 | 4);
    ck_assert_uint_eq(memory[2], 2 | 5);
    expect_lane(5, 1, 63);
}
END_TEST

/* All lanes of an atomic see the others' results. */
START_TEST(atomics_add_up)
{
    begin(32);
    point_to_memory();
    run("v_mov_b32_e32 v2, 0\nv_mov_b32_e32 v3, 1\nglobal_atomic_add v4, v2, v3, s[0:1] glc");
    ck_assert_uint_eq(memory[0], 32);
    expect_lane(4, 31, 31);
}
END_TEST

/* ---- Mistakes end the program ----------------------------------------------------------------------------------- */

static const char *const mistakes[] = {
    "v_unheard_of_b32 v0, v1",
    "v_mov_b32_e32 v0, v1 mul:2",
    "v_add_u32_e32 v0, -v1, v2",                 /* a float's sign on an integer */
    "global_load_dword v2, v1, s[0:1] offset:4", /* the last lane's is behind the memory */
    "v_add_u32_e32 v1, 1, v1\nglobal_load_dword v2, v1, s[0:1]",
    "v_add_u32_e32 v1, 1, v1\nds_read_b32 v2, v1",
    "ds_write_b32 v1, v0 offset:4",
    "s_mov_b64 exec, 1\nds_bpermute_b32 v2, v1, v0 offset:4", /* from an inactive lane */
    "s_load_dword s2, s[0:1], 0x100",
    "v_readlane_b32 s2, v0, 64",
    "global_load_dwordx2 v2, v1, s[0:1]",
    "s_branch 7",
    "v_mov_b32_e32 v0, a1",
};

START_TEST(a_mistake)
{
    begin(64);
    point_to_memory();
    run(mistakes[_i]);
}
END_TEST

static Suite *amdgpu_suite(void)
{
    const TTest *const tests[] = {scalars,
                                  scalars_of_64_bits,
                                  inner_constants,
                                  a_loop,
                                  only_active_lanes_are_written,
                                  exec_is_saved,
                                  comparisons_and_exec,
                                  choices_by_mask,
                                  carries,
                                  shifts,
                                  products_and_saturation,
                                  halves,
                                  parts_of_operands,
                                  floats,
                                  floats_of_64_bits,
                                  lanes_by_number,
                                  counts_of_lanes_below,
                                  permutes,
                                  rows_of_16,
                                  local_memory,
                                  global_memory,
                                  atomics_add_up};
    Suite *suite = suite_create("amdgpu");
    TCase *tcase = tcase_create("instructions");
    for (size_t i = 0; i < LENGTH(tests); i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test_raise_signal(tcase, a_mistake, SIGABRT, 0, (int)LENGTH(mistakes));
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    const char *path = getenv("AMDGPU_INTERPRETER");
    if (!path) {
        printf("SKIP: AMDGPU_INTERPRETER names no library\n");
        return SKIPPED;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *entry = library ? dlsym(library, "amdgpu_run_snippet") : NULL;
    if (!entry) {
        printf("FAIL: %s\n", dlerror());
        return EXIT_FAILURE;
    }
    memcpy(&run_snippet, &entry, sizeof entry);
    return run_suite(amdgpu_suite());
}
