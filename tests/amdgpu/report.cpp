/* Prints what each kernel of the HIP device code takes, for each target, as a table for docs/amd.md. Fails if one uses
 * scratch memory, spills a vector register, or spills more scalar registers than a vector register has lanes: those
 * spills cost an instruction each way, but no memory. Usage: amdgpu_report IMAGE */
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "code_object.hpp"

using namespace amdgpu;

constexpr unsigned most_scalar_spills = 64;

/* Returns whether the kernel is as it should be. */
static bool report(const CodeObject &object, const KernelCode &kernel)
{
    const bool good = !kernel.scratch_bytes && !kernel.vector_spills && kernel.scalar_spills <= most_scalar_spills;
    std::printf("| %s | %s | %u | %u | %u | %u | %u | %u | %u | %llu |%s\n", object.target.c_str(), kernel.name.c_str(),
                kernel.wave_size, kernel.vector_registers, kernel.scalar_registers, kernel.lds_bytes,
                kernel.scratch_bytes, kernel.vector_spills, kernel.scalar_spills,
                static_cast<unsigned long long>(kernel.end - kernel.begin), good ? "" : " SPILLS");
    return good;
}

static bool report_all(const char *path)
{
    std::ifstream file(path, std::ios::binary);
    std::ostringstream bytes;
    bytes << file.rdbuf();
    const std::string image = bytes.str();
    const std::vector<CodeObject> objects = read_bundle(image.data());
    if (objects.empty())
        throw std::runtime_error(std::string(path) + " has no code objects");
    std::printf("| target | kernel | wave | VGPRs | SGPRs | LDS bytes | scratch bytes | VGPR spills | SGPR spills | "
                "code bytes |\n|---|---|---|---|---|---|---|---|---|---|\n");
    bool good = true;
    for (const CodeObject &object : objects)
        for (const KernelCode &kernel : object.kernels)
            good &= report(object, kernel);
    return good;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        std::fprintf(stderr, "usage: amdgpu_report IMAGE\n");
        return 2;
    }
    try {
        return report_all(argv[1]) ? EXIT_SUCCESS : EXIT_FAILURE;
    } catch (const std::runtime_error &error) {
        std::fprintf(stderr, "amdgpu_report: %s\n", error.what());
        return 2;
    }
}
