/* The list of kernels, once for the host, the vendors' device code and the tests' drivers:
 *     KERNEL(NAME, name, parameter)
 * is draftmeta_ ## name, which does gpu_ ## name with its parameter. */
#ifndef DRAFTMETA_GPU_KERNELS_H
#define DRAFTMETA_GPU_KERNELS_H

#define GPU_KERNELS(KERNEL)                                                                                            \
    KERNEL(FILL, fill, gpu_job)                                                                                        \
    KERNEL(FILL_LENGTHS, fill_lengths, gpu_lengths)                                                                    \
    KERNEL(FILL_STEP, fill_step, gpu_job)                                                                              \
    KERNEL(FILL_RAGGED, fill_ragged, gpu_job)                                                                          \
    KERNEL(FILL_RAGGED_REPORT, fill_ragged_report, gpu_job)                                                            \
    KERNEL(FILL_MANY, fill_many, gpu_jobs)                                                                             \
    KERNEL(FILL_STEPS, fill_steps, gpu_jobs)

#endif
