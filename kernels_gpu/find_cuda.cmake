# Decides whether the CUDA module is built, enables the language if so, and says what was decided.
#
# in:  TANDEM_CUDA  AUTO: where nvcc is found and works; ON: or stop; OFF
# out: TANDEM_WITH_CUDA, TANDEM_CUDA_ARCHITECTURES
set(TANDEM_CUDA AUTO CACHE STRING "Build the CUDA module: AUTO (where nvcc works), ON or OFF")
set_property(CACHE TANDEM_CUDA PROPERTY STRINGS AUTO ON OFF)
# Code for data-centre and consumer cards since 2020, and a portable form that drivers compile for newer ones.
set(TANDEM_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "What the CUDA module is compiled for")

# Sets `problem` to why there can be no module; empty: nothing stands against it.
function(tandem_look_for_nvcc problem)
  if(TANDEM_SANITIZE)
    set(${problem} "sanitizers are on" PARENT_SCOPE)
    return()
  endif()
  find_program(TANDEM_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  mark_as_advanced(TANDEM_NVCC)
  if(NOT TANDEM_NVCC)
    set(${problem} "no nvcc found" PARENT_SCOPE)
    return()
  endif()
  # An nvcc that refuses the host's compiler, or is older than C++20, is found out here and not in the middle of a build.
  set(probe ${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/tandem_cuda_probe)
  file(WRITE ${probe}.cu "#include <cuda_runtime.h>\n#include <span>\n__global__ void probe(const __grid_constant__ int i) { (void)i; }\n")
  execute_process(
    COMMAND ${TANDEM_NVCC} -std=c++20 -arch=sm_80 -ccbin ${CMAKE_CXX_COMPILER} -c ${probe}.cu -o ${probe}.o
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    string(REGEX MATCH "[^\n]+" reason "${output}\n${result}")  # the first line that says something
    set(${problem} "${TANDEM_NVCC} does not compile: ${reason}" PARENT_SCOPE)
    return()
  endif()
  set(${problem} "" PARENT_SCOPE)
endfunction()

set(TANDEM_WITH_CUDA OFF)
if(NOT TANDEM_CUDA)
  message(STATUS "CUDA module: not built (TANDEM_CUDA is OFF)")
else()
  tandem_look_for_nvcc(tandem_cuda_problem)
  if(NOT tandem_cuda_problem)
    set(TANDEM_WITH_CUDA ON)
  elseif(TANDEM_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA module: not built (${tandem_cuda_problem})")
  else()
    message(FATAL_ERROR "TANDEM_CUDA is ON, but the module cannot be built: ${tandem_cuda_problem}")
  endif()
endif()

if(TANDEM_WITH_CUDA)
  set(CMAKE_CUDA_COMPILER ${TANDEM_NVCC})
  set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
  set(CMAKE_CUDA_ARCHITECTURES ${TANDEM_CUDA_ARCHITECTURES})
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # CMake 3.25 does not know that nvcc has it
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  message(STATUS "CUDA module: built with nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${TANDEM_CUDA_ARCHITECTURES}")
endif()
