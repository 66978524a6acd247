/* What the interpreter of AMD machine code exports for its own tests. */
#ifndef DRAFTMETA_AMDGPU_INTERPRETER_H
#define DRAFTMETA_AMDGPU_INTERPRETER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One wave, as it is before a snippet and after it. */
typedef struct amdgpu_wave {
    unsigned lanes;           /* 32 or 64 */
    uint32_t scalars[128];    /* s0 on; vcc is 106 and 107, m0 124, exec 126 and 127 */
    uint32_t vectors[16][64]; /* v0 on */
    bool scc;
    uint32_t lds[64];
    void *memory; /* the only global memory, of so many bytes */
    uint64_t memory_bytes;
    uint64_t executed; /* instructions */
} amdgpu_wave;

/* Runs text, lines as llvm-objdump prints them, to its s_endpgm. Each is taken to be one word long: branches count in
 * words from the next instruction on. A mistake ends the program with a message. */
#pragma GCC visibility push(default)
void amdgpu_run_snippet(const char *target, const char *text, amdgpu_wave *wave);
#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
