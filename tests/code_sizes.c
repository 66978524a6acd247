/* Prints how many bytes of code each kernel of a device code image has, functions out of line included, as a table for
 * docs/performance.md. Between an engine's kernels all that a fill walks through comes from memory, so this fails if a
 * kernel for engines' sets, or the median of all kernels, has more than its targets allow. Usage: code_sizes IMAGE */
#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(list) (sizeof(list) / sizeof *(list))

enum { SKIPPED = 77, BROKEN = 2, MOST_KERNELS = 64 };

/* The most bytes of code, by what targets' names begin with; others are printed and not judged. Waves of AMD GPUs share
 * an instruction cache of 32 KiB at least. */
static const struct {
    const char *targets;
    uint64_t bytes;
} bars[] = {{"sm_90", 24576}, {"gfx", 32768}};

static const char prefix[] = "draftmeta_";
/* No engine asks for the report of a ragged batch: fill_ragged_report is not among them. */
static const char *const for_engines[] = {"fill_lengths", "fill_step", "fill_ragged", "fill_steps"};

/* ---- The image ---- */

typedef struct span {
    const unsigned char *bytes;
    uint64_t size;
} span;

static void stop(const char *why)
{
    fprintf(stderr, "code_sizes: %s\n", why);
    exit(BROKEN);
}

static span part_of(span whole, uint64_t offset, uint64_t size)
{
    if (offset > whole.size || size > whole.size - offset)
        stop("the image ends early");
    return (span){whole.bytes + offset, size};
}

static void copy_from(span whole, uint64_t offset, void *to, size_t size)
{
    memcpy(to, part_of(whole, offset, size).bytes, size);
}

static uint64_t number_at(span whole, uint64_t offset, size_t bytes)
{
    uint64_t value = 0;
    copy_from(whole, offset, &value, bytes); /* all that is in an image is little-endian, as its hosts are */
    return value;
}

static span read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        stop("the image cannot be read");
    const long size = ftell(file);
    rewind(file);
    unsigned char *bytes = malloc((size_t)size + 1);
    if (!bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size)
        stop("the image cannot be read");
    fclose(file);
    bytes[size] = 0;
    return (span){bytes, (uint64_t)size};
}

/* ---- Kernels of an ELF file, in its symbols ---- */

typedef struct kernel_size {
    char name[64];
    uint64_t bytes;
} kernel_size;

static int read_kernels(span elf, kernel_size *kernels)
{
    Elf64_Ehdr header;
    int count = 0;
    copy_from(elf, 0, &header, sizeof header);
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
        stop("the code is compressed: to be read it must be built without");
    for (unsigned i = 0; i < header.e_shnum; i++) {
        Elf64_Shdr table, names;
        copy_from(elf, header.e_shoff + i * sizeof table, &table, sizeof table);
        if (table.sh_type != SHT_SYMTAB)
            continue;
        copy_from(elf, header.e_shoff + table.sh_link * sizeof names, &names, sizeof names);
        for (uint64_t at = 0; at < table.sh_size && count < MOST_KERNELS; at += sizeof(Elf64_Sym)) {
            Elf64_Sym symbol;
            copy_from(elf, table.sh_offset + at, &symbol, sizeof symbol);
            if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || ELF64_ST_BIND(symbol.st_info) != STB_GLOBAL)
                continue;
            const span strings = part_of(elf, names.sh_offset, names.sh_size);
            if (symbol.st_name >= strings.size)
                stop("a symbol without a name");
            kernels[count] = (kernel_size){.bytes = symbol.st_size};
            strncpy(kernels[count].name, (const char *)strings.bytes + symbol.st_name, sizeof kernels->name - 1);
            count++;
        }
    }
    return count;
}

/* ---- The bars ---- */

static bool is_for_engines(const char *name)
{
    for (size_t i = 0; i < LENGTH(for_engines); i++)
        if (strncmp(name, prefix, sizeof prefix - 1) == 0 && !strcmp(name + sizeof prefix - 1, for_engines[i]))
            return true;
    return false;
}

static uint64_t bar_of(const char *target)
{
    for (size_t i = 0; i < LENGTH(bars); i++)
        if (strncmp(target, bars[i].targets, strlen(bars[i].targets)) == 0)
            return bars[i].bytes;
    return 0;
}

static int compare_sizes(const void *a, const void *b)
{
    const uint64_t left = ((const kernel_size *)a)->bytes, right = ((const kernel_size *)b)->bytes;
    return (left > right) - (left < right);
}

static int failures, judged;

static void print_size(const char *target, const char *name, uint64_t bytes, uint64_t bar)
{
    const bool bad = bar && bytes > bar;
    printf("| %s | %s | %llu |%s\n", target, name, (unsigned long long)bytes, bad ? " TOO LARGE" : "");
    failures += bad;
}

/* One target's kernels. */
static void report(const char *target, span elf)
{
    kernel_size kernels[MOST_KERNELS];
    const int count = read_kernels(elf, kernels);
    const uint64_t bar = bar_of(target);
    size_t engines = 0;
    for (int i = 0; i < count; i++) {
        engines += is_for_engines(kernels[i].name);
        print_size(target, kernels[i].name, kernels[i].bytes, is_for_engines(kernels[i].name) ? bar : 0);
    }
    if (engines != LENGTH(for_engines))
        stop("kernels for engines' sets are missing");
    qsort(kernels, (size_t)count, sizeof *kernels, compare_sizes);
    print_size(target, "the median", (kernels[(count - 1) / 2].bytes + kernels[count / 2].bytes) / 2, bar);
    judged += bar != 0;
}

/* ---- NVIDIA's fat binaries, and offload bundles for AMD ---- */

enum { FATBIN_MAGIC = 0xba55ed50u, FATBIN_ELF = 2 };

static void report_fatbin(span image)
{
    const uint64_t end = image.size;
    for (uint64_t at = number_at(image, 6, 2), header, size; at < end; at += header + size) {
        char target[16];
        header = number_at(image, at + 4, 4);
        size = number_at(image, at + 8, 8);
        snprintf(target, sizeof target, "sm_%u", (unsigned)number_at(image, at + 28, 4));
        if (number_at(image, at, 2) == FATBIN_ELF) /* else it is PTX */
            report(target, part_of(image, at + header, size));
    }
}

static const char bundle_magic[] = "__CLANG_OFFLOAD_BUNDLE__", bundle_entry[] = "hipv4-amdgcn-amd-amdhsa--";

static void report_bundle(span image)
{
    uint64_t at = sizeof bundle_magic - 1 + 8;
    for (uint64_t left = number_at(image, at - 8, 8); left; left--) {
        const uint64_t offset = number_at(image, at, 8), size = number_at(image, at + 8, 8);
        const span name = part_of(image, at + 24, number_at(image, at + 16, 8));
        const size_t skipped = sizeof bundle_entry - 1;
        char target[64] = "";
        at += 24 + name.size;
        if (name.size <= skipped || name.size - skipped >= sizeof target || memcmp(name.bytes, bundle_entry, skipped))
            continue; /* the host's, which is empty */
        memcpy(target, name.bytes + skipped, name.size - skipped);
        report(target, part_of(image, offset, size));
    }
}

/* Returns the status to exit with. */
static int judge(span image)
{
    if (!image.size) {
        printf("SKIP: this build has no such device code\n");
        return SKIPPED;
    }
    printf("| target | kernel | code bytes |\n|---|---|---|\n");
    if (image.size > 4 && number_at(image, 0, 4) == FATBIN_MAGIC)
        report_fatbin(image);
    else if (image.size > sizeof bundle_magic && !memcmp(image.bytes, bundle_magic, sizeof bundle_magic - 1))
        report_bundle(image);
    else
        stop("the image is neither a fat binary nor an offload bundle");
    if (!judged) {
        printf("SKIP: no target here has a bar\n");
        return SKIPPED;
    }
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        stop("usage: code_sizes IMAGE");
    const span image = read_file(argv[1]);
    const int result = judge(image);
    free((void *)image.bytes);
    return result;
}
