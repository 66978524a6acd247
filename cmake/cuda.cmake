# NVIDIA device code, all targets in one fat binary: ${device_dir}/cuda.image, empty where there is no nvcc.
# Sets CUDA_COMPILER (empty if there is none) and cuda_release.

set(DRAFTMETA_CUDA AUTO CACHE STRING "CUDA device code: AUTO (if there is nvcc), ON or OFF")
set(DRAFTMETA_CUDA_TARGETS "" CACHE STRING "Compute capabilities to compile for, such as 90 or 80;90; empty: all")

set(CUDA_COMPILER "")
if(NOT DRAFTMETA_CUDA STREQUAL "OFF")
  find_program(DRAFTMETA_CUDA_COMPILER nvcc HINTS /usr/local/cuda/bin)
  set(CUDA_COMPILER ${DRAFTMETA_CUDA_COMPILER})
endif()
if(DRAFTMETA_CUDA STREQUAL "ON" AND NOT CUDA_COMPILER)
  message(FATAL_ERROR "DRAFTMETA_CUDA=ON needs nvcc")
endif()
set(cuda_release 12.0)
if(CUDA_COMPILER)
  execute_process(COMMAND ${CUDA_COMPILER} --version OUTPUT_VARIABLE cuda_version COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCH "release ([0-9]+)\\.[0-9]+" cuda_release "${cuda_version}")
  string(REPLACE "release " "" cuda_release "${cuda_release}")
  message(STATUS "CUDA device code: by ${CUDA_COMPILER} ${cuda_release}")
  set(cuda_targets "")
  foreach(target IN LISTS DRAFTMETA_CUDA_TARGETS)
    list(APPEND cuda_targets -gencode arch=compute_${target},code=[sm_${target},compute_${target}])
  endforeach()
  if(NOT cuda_targets)
    set(cuda_targets -gencode arch=compute_80,code=[sm_80,compute_80] -gencode arch=compute_90,code=sm_90)
    if(cuda_release VERSION_GREATER_EQUAL 12.8) # the first that knows Blackwell
      list(APPEND cuda_targets -gencode arch=compute_100,code=sm_100
        -gencode arch=compute_120,code=[sm_120,compute_120])
    endif()
  endif()
  add_custom_command(OUTPUT ${device_dir}/cuda.image
    COMMAND ${CUDA_COMPILER} -fatbin -std=c++17 -O3 ${cuda_targets} ${device_includes} -o ${device_dir}/cuda.image
      ${PROJECT_SOURCE_DIR}/backends/cuda/fill.cu
    DEPENDS backends/cuda/fill.cu ${device_sources} COMMENT "Compiling the CUDA device code" VERBATIM)
else()
  message(STATUS "CUDA device code: none")
  file(WRITE ${device_dir}/cuda.image "")
endif()

# Device code runs with drivers of its compiler's major version, and later ones.
string(REGEX REPLACE "\\..*" "000" oldest_driver ${cuda_release})
set_source_files_properties(backends/cuda/cuda.c PROPERTIES COMPILE_DEFINITIONS CUDA_OLDEST_DRIVER=${oldest_driver})
