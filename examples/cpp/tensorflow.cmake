# Two targets to link with, from the TensorFlow that is installed for Python:
#
#   tensorflow_c    the C API (tensorflow/c/c_api.h), for C and C++
#   tensorflow_cc   the C++ API as well, with the flags the wheel was built with

find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND ${Python3_EXECUTABLE} -c "
import os
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import tensorflow as tf
print(tf.sysconfig.get_lib(), *[flag for flag in tf.sysconfig.get_compile_flags() if '=' in flag], sep=';')"
  OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_VARIABLE trouble RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${Python3_EXECUTABLE} cannot import tensorflow; pass -DPython3_EXECUTABLE=...\n${trouble}")
endif()
list(POP_FRONT found tensorflow_folder)
message(STATUS "TensorFlow: ${tensorflow_folder} ${found}")

# The libraries' names end in .so.2 (.2.dylib on macOS), so they are named in full.
file(GLOB libraries ${tensorflow_folder}/libtensorflow_cc.* ${tensorflow_folder}/libtensorflow_framework.*)
list(FILTER libraries INCLUDE REGEX "\\.so\\.2$|\\.2\\.dylib$")

add_library(tensorflow_c INTERFACE)
# The headers' own warnings are not ours to mend.
target_include_directories(tensorflow_c SYSTEM INTERFACE ${tensorflow_folder}/include)
# What registers the session is never called by name: a linker that drops libraries of which nothing is called would
# drop it.
if(NOT APPLE)
  target_link_options(tensorflow_c INTERFACE -Wl,--no-as-needed)
endif()
target_link_libraries(tensorflow_c INTERFACE ${libraries})
set(CMAKE_BUILD_RPATH ${tensorflow_folder})

add_library(tensorflow_cc INTERFACE)
target_compile_options(tensorflow_cc INTERFACE ${found})
target_link_libraries(tensorflow_cc INTERFACE tensorflow_c)
