# cmake -DNM=nm -DOBJECTS=a.o,b.o -P no_weak_symbols.cmake
# Files compiled for newer instruction sets must not offer a weak symbol: the linker could take that copy for
# a caller that runs on any processor.
string(REPLACE "," ";" objects "${OBJECTS}")
if(NOT objects)
  message(FATAL_ERROR "no objects to look at")
endif()
foreach(object IN LISTS objects)
  execute_process(COMMAND ${NM} --defined-only ${object} OUTPUT_VARIABLE symbols
                  COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[0-9a-f]+ [WVuw] [^\n]+" weak "${symbols}")
  if(weak)
    message(FATAL_ERROR "${object} defines weak symbols: ${weak}")
  endif()
  if(NOT symbols MATCHES " T [^\n]*(avx(2|512|vnni)|amx)")
    message(FATAL_ERROR "${object} defines no operator; is the right file looked at?")
  endif()
endforeach()
