/* A code object: an ELF file of machine code for one AMD GPU, from the offload bundle that the library embeds. */
#ifndef DRAFTMETA_AMDGPU_CODE_OBJECT_HPP
#define DRAFTMETA_AMDGPU_CODE_OBJECT_HPP

#include <cstdint>
#include <string>
#include <vector>

namespace amdgpu
{

/* An argument that the compiler adds behind the kernel's own. */
struct HiddenArgument {
    std::string kind; /* such as "hidden_group_size_x" */
    std::size_t offset, size;
};

struct KernelCode {
    std::string name;
    std::uint64_t begin = 0, end = 0; /* of its machine code: addresses in the code object */
    unsigned wave_size = 0, max_threads = 0;
    std::size_t parameter_bytes = 0; /* the kernel's own arguments */
    std::size_t argument_bytes = 0;  /* with the hidden ones */
    std::vector<HiddenArgument> hidden;
    unsigned lds_bytes = 0, scratch_bytes = 0;
    unsigned vector_registers = 0, scalar_registers = 0, vector_spills = 0, scalar_spills = 0;
    std::uint32_t resources = 0;  /* COMPUTE_PGM_RSRC2: which scalars a wave begins with */
    std::uint16_t properties = 0; /* which of the user's, the first ones, they are */
    std::uint16_t preloaded = 0;  /* arguments that the hardware puts into registers */
};

struct CodeObject {
    std::string target;
    std::vector<unsigned char> memory; /* as it is loaded, from address 0 on */
    std::vector<KernelCode> kernels;
};

/* The code objects of an offload bundle; none if the image is something else. What is there and broken throws
 * std::runtime_error. */
std::vector<CodeObject> read_bundle(const void *image);

} // namespace amdgpu

#endif
