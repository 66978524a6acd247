# AMD device code: a code object for each target, and all of them in one uncompressed offload bundle, as
# hipModuleLoadData takes it: ${device_dir}/hip.image, empty where it cannot be compiled.
# ROCm's own compiler is taken if there is one; else clang 19, with the headers and the device libraries that
# distributions package. Sets HIP_COMPILER, empty if there is none.

set(DRAFTMETA_HIP AUTO CACHE STRING "HIP device code: AUTO (if there is a compiler for it), ON or OFF")
set(DRAFTMETA_HIP_TARGETS gfx90a gfx942 gfx1030 gfx1100 CACHE STRING "The AMD GPUs that HIP device code is built for")

# find_part(VARIABLE PACKAGE ...): find_program or find_path; what is not found goes to the list hip_missing.
macro(find_part how variable package)
  cmake_language(CALL ${how} DRAFTMETA_${variable} ${ARGN})
  set(${variable} ${DRAFTMETA_${variable}})
  if(NOT ${variable})
    list(APPEND hip_missing ${package})
  endif()
endmacro()

# clang 19 asks for a file of constants for each target, which older device libraries lack for newer targets. It holds
# one number, such as 9402 for gfx942: another target's file with the number changed will do.
function(complete_device_libraries directory)
  file(MAKE_DIRECTORY ${directory})
  file(GLOB libraries ${DEVICE_LIBRARIES}/*.bc)
  foreach(library IN LISTS libraries)
    cmake_path(GET library FILENAME name)
    file(CREATE_LINK ${library} ${directory}/${name} SYMBOLIC)
  endforeach()
  foreach(target IN LISTS DRAFTMETA_HIP_TARGETS)
    string(REPLACE gfx "" version ${target})
    set(file ${directory}/oclc_isa_version_${version}.bc)
    if(EXISTS ${file})
      continue()
    elseif(NOT version MATCHES "^([0-9]+)([0-9])([0-9])$")
      message(FATAL_ERROR "DRAFTMETA_HIP_TARGETS: ${DEVICE_LIBRARIES} does not support ${target}")
    endif()
    math(EXPR number "${CMAKE_MATCH_1} * 1000 + ${CMAKE_MATCH_2} * 100 + ${CMAKE_MATCH_3}")
    execute_process(
      COMMAND ${LLVM_DIS} -o - ${DEVICE_LIBRARIES}/oclc_isa_version_900.bc
      COMMAND sed "s/i32 9000/i32 ${number}/"
      COMMAND ${LLVM_AS} -o ${file} COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
endfunction()

set(hip_missing "")
set(hip_options "")
set(HIP_COMPILER "")
if(NOT DRAFTMETA_HIP STREQUAL "OFF")
  set(rocm_dirs $ENV{ROCM_PATH}/llvm/bin $ENV{ROCM_PATH}/bin /opt/rocm/llvm/bin /opt/rocm/bin)
  find_program(DRAFTMETA_ROCM_COMPILER amdclang++ HINTS ${rocm_dirs})
  if(DRAFTMETA_ROCM_COMPILER)
    set(HIP_COMPILER ${DRAFTMETA_ROCM_COMPILER})
  else()
    find_part(find_program HIP_COMPILER clang-19 clang++-19)
    find_part(find_program LLVM_DIS llvm-19 llvm-dis-19)
    find_part(find_program LLVM_AS llvm-19 llvm-as-19)
    find_part(find_program LLD lld-19 ld.lld-19)
    find_part(find_path HIP_HEADERS libamdhip64-dev hip/hip_runtime.h)
    find_part(find_path DEVICE_LIBRARIES rocm-device-libs ockl.bc
      PATHS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE} PATH_SUFFIXES amdgcn/bitcode)
  endif()
  find_part(find_program OFFLOAD_BUNDLER hipcc NAMES clang-offload-bundler-19 clang-offload-bundler
    HINTS ${rocm_dirs} /usr/lib/llvm-19/bin /usr/lib/llvm-15/bin)
endif()
list(REMOVE_DUPLICATES hip_missing)
list(JOIN hip_missing ", " hip_missing)
if(hip_missing)
  set(HIP_COMPILER "")
endif()
if(DRAFTMETA_HIP STREQUAL "ON" AND hip_missing)
  message(FATAL_ERROR "DRAFTMETA_HIP=ON needs ROCm, or these packages: ${hip_missing}")
endif()

if(HIP_COMPILER)
  message(STATUS "HIP device code: by ${HIP_COMPILER} for ${DRAFTMETA_HIP_TARGETS}")
  if(NOT DRAFTMETA_ROCM_COMPILER)
    complete_device_libraries(${device_dir}/bitcode)
    set(hip_options --rocm-path=/usr --rocm-device-lib-path=${device_dir}/bitcode
      -mcode-object-version=5)
  endif()
  set(hip_bundle_targets host-x86_64-unknown-linux-gnu)
  set(hip_bundle_inputs -input=/dev/null)
  foreach(target IN LISTS DRAFTMETA_HIP_TARGETS)
    set(code_object ${device_dir}/${target}.co)
    add_custom_command(OUTPUT ${code_object}
      COMMAND ${HIP_COMPILER} -x hip --offload-arch=${target} --cuda-device-only --no-gpu-bundle-output
        ${hip_options} -std=c++17 -O3 ${device_includes} -c -o ${code_object} ${PROJECT_SOURCE_DIR}/backends/hip/fill.hip
      DEPENDS backends/hip/fill.hip ${device_sources} COMMENT "Compiling the device code for ${target}" VERBATIM)
    string(APPEND hip_bundle_targets ",hipv4-amdgcn-amd-amdhsa--${target}")
    list(APPEND hip_bundle_inputs -input=${code_object})
    list(APPEND hip_code_objects ${code_object})
  endforeach()
  add_custom_command(OUTPUT ${device_dir}/hip.image
    COMMAND ${OFFLOAD_BUNDLER} -type=o -bundle-align=4096 -targets=${hip_bundle_targets} ${hip_bundle_inputs}
      -output=${device_dir}/hip.image
    DEPENDS ${hip_code_objects} COMMENT "Bundling the HIP device code" VERBATIM)
else()
  if(hip_missing)
    set(hip_missing ": that needs ROCm, or these packages: ${hip_missing}")
  endif()
  message(STATUS "HIP device code: none${hip_missing}")
  file(WRITE ${device_dir}/hip.image "")
endif()
