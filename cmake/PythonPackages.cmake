# The Python package, importable from the build tree, for each interpreter of EXECNET_PYTHONS:
# ${build}/python-3.11/execnet holds links to the package's sources and the extension module.
#
# A CMake project can know only one Python, so each extension is a build of its own of python/
# against the objects compiled here.
include(ExternalProject)

find_package(Python 3.10 COMPONENTS Interpreter)
set(EXECNET_PYTHONS "${Python_EXECUTABLE}" CACHE STRING "Interpreters (paths) to build the Python package for")
if(NOT EXECNET_PYTHONS)
  message(FATAL_ERROR "No Python 3.10 or newer was found. Set EXECNET_PYTHONS, or EXECNET_BUILD_PYTHON=OFF.")
endif()

export(TARGETS execnet_objects FILE ${PROJECT_BINARY_DIR}/execnet-objects.cmake)
file(GLOB_RECURSE package_files CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/python
     ${PROJECT_SOURCE_DIR}/python/execnet/*.py ${PROJECT_SOURCE_DIR}/python/execnet/*.pyi
     ${PROJECT_SOURCE_DIR}/python/execnet/py.typed)

set(EXECNET_PYTHON_VERSIONS "")
foreach(python IN LISTS EXECNET_PYTHONS)
  execute_process(COMMAND ${python} -c "import sys; print('%d.%d' % sys.version_info[:2])"
                  OUTPUT_VARIABLE python_version OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(name python-${python_version})
  set(path ${PROJECT_BINARY_DIR}/${name})
  list(APPEND EXECNET_PYTHON_VERSIONS ${python_version})
  set(EXECNET_PYTHON_${python_version} ${python})
  set(EXECNET_PYTHONPATH_${python_version} ${path})

  # Links to files that are gone must go, too.
  file(GLOB_RECURSE old ${path}/execnet/*.py ${path}/execnet/*.pyi)
  if(old)
    file(REMOVE ${old})
  endif()
  foreach(file IN LISTS package_files)
    cmake_path(GET file PARENT_PATH directory)
    file(MAKE_DIRECTORY ${path}/${directory})
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/python/${file} ${path}/${file} SYMBOLIC)
  endforeach()

  set(forwarded "")
  foreach(variable IN ITEMS CMAKE_BUILD_TYPE CMAKE_MAKE_PROGRAM CMAKE_CXX_COMPILER CMAKE_CXX_COMPILER_LAUNCHER
                            CMAKE_CXX_FLAGS CMAKE_COMPILE_WARNING_AS_ERROR CMAKE_EXPORT_COMPILE_COMMANDS EXECNET_SANITIZE)
    list(APPEND forwarded -D${variable}=${${variable}})
  endforeach()
  ExternalProject_Add(${name}
    SOURCE_DIR ${PROJECT_SOURCE_DIR}/python
    BINARY_DIR ${path}/build
    PREFIX ${path}/project
    CMAKE_ARGS ${forwarded} -DPython_EXECUTABLE=${python} -DEXECNET_PACKAGE_DIR=${path}/execnet
               -DEXECNET_OBJECTS=${PROJECT_BINARY_DIR}/execnet-objects.cmake
    DEPENDS execnet_objects
    BUILD_ALWAYS ON
    USES_TERMINAL_BUILD ON  # One after the other: each takes all processors.
    INSTALL_COMMAND "")
endforeach()
